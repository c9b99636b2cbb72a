// Division by a number that the host knew: a multiplication and a shift instead of some twenty instructions
// (Granlund and Montgomery, "Division by invariant integers using multiplication", 1994).

// n / divisor for n >= 0. `magic` is what division.magic(divisor) gives, and is used where offsets are of type int.
__device__ __forceinline__ int quotient(int n, long long, const unsigned (&magic)[2]) {
    return int((__umulhi(unsigned(n), magic[0]) + unsigned(n)) >> magic[1]);
}

__device__ __forceinline__ long long quotient(long long n, long long divisor, const unsigned (&)[2]) { return n / divisor; }
