// How Python calls a kernel: the arguments lie in one buffer, each at the next multiple of its alignment, and a
// signature tells Python what they are.
#pragma once
#include "cudasim/runtime.h"

namespace cudasim {

template <class A, class B> constexpr bool is_same = false;
template <class A> constexpr bool is_same<A, A> = true;

template <class T> struct Bare {
    using type = T;
};
template <class T> struct Bare<const T> : Bare<T> {};
template <class T> struct Bare<volatile T> : Bare<T> {};
template <class T> struct Bare<T&> : Bare<T> {};
template <class T> struct Bare<T&&> : Bare<T> {};
template <class T> using bare = typename Bare<T>::type;

// A row of the signature: 'p' (pointer), 'b' (bool), 'i', 'u', 'f' or 'V' (a record, or another type of the kernel's);
// of a pointer, what it points to.
struct Parameter {
    char kind;
    char target;  // of a pointer: the kind of what it points to
    int constant; // of a pointer: whether it is to const
    int size;     // of the argument, or of what the pointer points to; 0 for void
    int alignment;
};

template <class T> struct Half16 {  // __half and __nv_bfloat16 say so of themselves
    static constexpr char kind = 0;
};

template <class T> constexpr char kind_of() {
    if (is_same<T, bool>) return 'b';
    if (Half16<T>::kind) return Half16<T>::kind;
    if (__is_enum(T)) return 'i';
    if (is_same<T, float> || is_same<T, double>) return 'f';
    if (is_same<T, char> || is_same<T, signed char> || is_same<T, short> || is_same<T, int> || is_same<T, long> ||
        is_same<T, long long>)
        return 'i';
    if (is_same<T, unsigned char> || is_same<T, unsigned short> || is_same<T, unsigned> || is_same<T, unsigned long> ||
        is_same<T, unsigned long long>)
        return 'u';
    return 'V';
}

template <class T> struct Describe {
    static constexpr Parameter row{kind_of<T>(), 0, 0, sizeof(T), alignof(T)};
};
template <class T> struct Describe<T*> {  // of char*, whatever lies there may be its bytes
    static constexpr char target = is_same<bare<T>, char> ? 'V' : kind_of<bare<T>>();
    static constexpr Parameter row{'p', target, __is_same_as(T, const bare<T>), sizeof(bare<T>), alignof(T*)};
};
template <> struct Describe<void*> {
    static constexpr Parameter row{'p', 'V', 0, 0, alignof(void*)};
};
template <> struct Describe<const void*> {
    static constexpr Parameter row{'p', 'V', 1, 0, alignof(void*)};
};

template <auto kernel> struct Kernel;
template <class... A, void (*kernel)(A...)> struct Kernel<kernel> {
    static constexpr int count = sizeof...(A);
    static constexpr Parameter parameters[count + 1] = {Describe<bare<A>>::row..., {}};

    static constexpr size_t offset(int index) {
        size_t at = 0;
        for (int i = 0; i <= index; ++i) {
            const size_t alignment = parameters[i].alignment;
            const size_t size = parameters[i].kind == 'p' ? sizeof(void*) : parameters[i].size;
            at = (at + alignment - 1) / alignment * alignment + (i < index ? size : 0);
        }
        return at;
    }
    template <int... I> struct Indices {};
    template <int... I>
    CUDASIM_UNCHECKED static void unpack(const char* arguments, Indices<I...>) {
        kernel(*reinterpret_cast<const bare<A>*>(arguments + offset(I))...);
    }
    template <int n, int... I> struct Count : Count<n - 1, n - 1, I...> {};
    template <int... I> struct Count<0, I...> {
        using type = Indices<I...>;
    };
    CUDASIM_UNCHECKED static void enter(const char* arguments) { unpack(arguments, typename Count<count>::type{}); }
};

}  // namespace cudasim

extern "C" char __ehdr_start[] __attribute__((visibility("hidden")));
extern "C" char _end[] __attribute__((visibility("hidden")));

// The two functions that Python calls for kernel number `n` of the module.
#define CUDASIM_ENTRY(n, ...)                                                                                          \
    extern "C" __attribute__((visibility("default"))) int cudasim_run_##n(cudasim::Launch* launch, const char* arguments) { \
        return cudasim::run(launch, cudasim::Kernel<&__VA_ARGS__>::enter, arguments, __ehdr_start, _end);              \
    }                                                                                                                  \
    extern "C" __attribute__((visibility("default"))) const cudasim::Parameter* cudasim_signature_##n() {             \
        return cudasim::Kernel<&__VA_ARGS__>::parameters;                                                              \
    }
