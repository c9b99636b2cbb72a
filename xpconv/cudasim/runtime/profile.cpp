// The access profile of check mode: what the memory system would do for each warp's request, and the least it could.
#include <algorithm>
#include <tuple>

#include "checker.h"

namespace cudasim {

constexpr unsigned kSector = 32, kBanks = 32, kBankBytes = 4;
// Tells the lines of asynchronous copies from the places of instructions.
constexpr unsigned kCopies = 1u << 31;

bool Checker::Instance::operator<(const Instance& other) const {
    return std::tie(instruction, warp, occurrence, shared) < std::tie(other.instruction, other.warp, other.occurrence, other.shared);
}

// The n-th time that a thread executes an instruction belongs to the n-th request of its warp.
void Checker::count_request(const Region& region, const char* address, size_t size, bool write, const void* caller) {
    if (counted_as_ == kUncounted) return;
    const unsigned at = static_cast<unsigned>(static_cast<const char*>(caller) - worker_.module_begin);
    const unsigned instruction = counted_as_ ? kCopies | counted_as_ << 1 | region.shared : at;
    const int thread = worker_.running->linear;
    const unsigned occurrence = occurrences_[static_cast<unsigned long long>(instruction) << 10 | static_cast<unsigned>(thread)]++;
    Request& request = requests_[{instruction, thread / 32, occurrence, region.shared}];
    request.write = write;
    request.caller = at;
    const uintptr_t position = reinterpret_cast<uintptr_t>(address) - (region.shared ? reinterpret_cast<uintptr_t>(worker_.arena) : 0);
    request.accesses.push_back({position, static_cast<unsigned>(size)});
}

template <class T> static void sort_unique(std::vector<T>& values) {
    std::sort(values.begin(), values.end());
    values.erase(std::unique(values.begin(), values.end()), values.end());
}

void Checker::flush_profile() {
    for (auto& [instance, request] : requests_) {
        auto& accesses = request.accesses;
        Totals& totals = totals_[{request.caller, instance.shared}];
        totals.write = request.write;
        ++totals.requests;
        if (instance.shared) {
            // 32 lanes are served at once if they want 4 bytes each, 16 if they want 8, 8 if they want 16. A bank
            // gives one word at a time, to all who want it.
            unsigned widest = kBankBytes;
            for (const auto& access : accesses) widest = std::max(widest, std::min(access.second, 16u));
            const size_t lanes = 32 / (widest / kBankBytes);
            for (size_t first = 0; first < accesses.size(); first += lanes) {
                std::vector<uintptr_t> words;
                for (size_t i = first; i < std::min(first + lanes, accesses.size()); ++i)
                    for (uintptr_t word = accesses[i].first / kBankBytes;
                         word <= (accesses[i].first + accesses[i].second - 1) / kBankBytes; ++word)
                        words.push_back(word);
                sort_unique(words);
                unsigned of_bank[kBanks] = {}, passes = 0;
                for (const uintptr_t word : words) passes = std::max(passes, ++of_bank[word % kBanks]);
                totals.transactions += passes;
                totals.least += (words.size() + kBanks - 1) / kBanks;
            }
        } else {
            std::vector<uintptr_t> sectors, bytes;
            for (const auto& [position, size] : accesses) {
                for (uintptr_t sector = position / kSector; sector <= (position + size - 1) / kSector; ++sector) sectors.push_back(sector);
                for (unsigned i = 0; i < size; ++i) bytes.push_back(position + i);
            }
            sort_unique(sectors);
            sort_unique(bytes);
            totals.transactions += sectors.size();
            totals.least += (bytes.size() + kSector - 1) / kSector;
        }
    }
    requests_.clear();
    occurrences_.clear();
}

void Checker::write_profile() const {
    Launch& launch = *worker_.launch;
    launch.row_count = 0;
    for (const auto& [key, totals] : totals_) {
        if (launch.row_count == launch.row_capacity) break;
        launch.rows[launch.row_count++] = {key.first - 1, key.second, totals.write, totals.requests, totals.transactions, totals.least};
    }
}

}  // namespace cudasim
