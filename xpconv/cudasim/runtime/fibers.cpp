// Fibers: their stacks, the switch between them, and what signals do to them.
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "checker.h"
#include "worker.h"

namespace cudasim {

thread_local Thread* current = nullptr;
thread_local Worker* worker = nullptr;

// ---- the switch: callee-saved registers are pushed on one stack and popped from the other -----------------------------

extern "C" void cudasim_switch(void** save, void* to);

#if defined(__x86_64__)
asm(R"(
.text
.p2align 4
.local cudasim_switch
.type cudasim_switch, @function
cudasim_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size cudasim_switch, . - cudasim_switch
)");

static void* first_frame(char* top, void (*function)()) {
    void** frame = reinterpret_cast<void**>(top) - 8;
    memset(frame, 0, 8 * sizeof(void*));
    frame[6] = reinterpret_cast<void*>(function);  // what `ret` jumps to; frame[7] is the return address of `function`
    return frame;
}
#elif defined(__aarch64__)
asm(R"(
.text
.p2align 4
.local cudasim_switch
.type cudasim_switch, %function
cudasim_switch:
    sub sp, sp, #160
    stp x19, x20, [sp]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
.size cudasim_switch, . - cudasim_switch
)");

static void* first_frame(char* top, void (*function)()) {
    void** frame = reinterpret_cast<void**>(top) - 20;
    memset(frame, 0, 20 * sizeof(void*));
    frame[11] = reinterpret_cast<void*>(function);  // x30
    return frame;
}
#else
#error "the simulator runs on x86-64 and aarch64"
#endif

void park() {
    Worker& w = *worker;
    cudasim_switch(&w.running->stack_pointer, w.scheduler_stack_pointer);
}

static void fiber_main() {
    worker->entry(worker->arguments);
    Fiber& fiber = *worker->running;
    if (!fiber.copies.empty())
        stop("async copy", "a thread ends with asynchronous copies that it never waited for", place(fiber.copies[0].caller));
    fiber.state = State::kDone;
    park();
    abort();
}

static char* stack_of(const Worker& w, int index) { return w.stacks + static_cast<size_t>(index) * kStackPitch; }

void start(Worker& w, Fiber& fiber) {
    if (w.free_stacks.empty()) {
        const int index = w.stacks_made++;
        if (mprotect(stack_of(w, index) + kPage, kStackSize, PROT_READ | PROT_WRITE) != 0) abort();  // guard page below
        w.free_stacks.push_back(index);
    }
    fiber.stack = w.free_stacks.back();
    w.free_stacks.pop_back();
    // Tops of stacks at equal distances from a page would all compete for the same few lines of the cache.
    const size_t colour = static_cast<size_t>(fiber.stack % 61) * 64;
    fiber.stack_pointer = first_frame(stack_of(w, fiber.stack) + kStackPitch - 64 - colour, fiber_main);
}

void resume(Worker& w, Fiber& fiber) {
    w.running = &fiber;
    current = &fiber;
    cudasim_switch(&w.scheduler_stack_pointer, fiber.stack_pointer);
    w.running = nullptr;
    current = nullptr;
}

Worker::Worker() {
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    stacks = static_cast<char*>(mmap(nullptr, kMaxThreads * kStackPitch, PROT_NONE, flags, -1, 0));
    arena = static_cast<char*>(mmap(nullptr, kArenaSize, PROT_READ | PROT_WRITE, flags, -1, 0));
    if (stacks == MAP_FAILED || arena == MAP_FAILED) abort();
    arena_dirty = kArenaSize;
    signal_stack = std::make_unique<char[]>(64 << 10);
}

Worker::~Worker() {
    munmap(stacks, kMaxThreads * kStackPitch);
    munmap(arena, kArenaSize);
}

// ---- signals --------------------------------------------------------------------------------------------------------

static constexpr int kFaults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
static constexpr int kSlots = 256;
static int guards = 0;
static struct sigaction old_faults[4], old_interrupt;
static bool interrupt_taken = false;
static std::atomic<bool> slot_used[kSlots];
static pthread_t slot_thread[kSlots];

static const char* program_counter(void* context) {
#if defined(__x86_64__)
    return reinterpret_cast<const char*>(static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP]);
#else
    return reinterpret_cast<const char*>(static_cast<ucontext_t*>(context)->uc_mcontext.pc);
#endif
}

static bool in_module(const Worker& w, const char* pc) { return pc >= w.module_begin && pc < w.module_end; }

static void on_fault(int number, siginfo_t* info, void* context) {
    Worker* w = worker;
    if (w == nullptr || w->running == nullptr) {  // not a kernel's: as if this handler were not there
        for (int i = 0; i < 4; ++i)
            if (kFaults[i] == number) sigaction(number, &old_faults[i], nullptr);
        return;
    }
    const char* address = static_cast<const char*>(info->si_addr);
    const char* stack = stack_of(*w, w->running->stack);
    const char* pc = program_counter(context);
    const Place where = place(in_module(*w, pc) ? pc + 1 : nullptr);
    if (number == SIGFPE) {
        record(*w, "division by zero", "an integer is divided by zero, or the quotient overflows", where, w->running);
    } else if (number == SIGILL) {
        record(*w, "unreachable", "the kernel reached a statement that it declares unreachable", where, w->running);
    } else if (address >= stack && address < stack + kPage) {
        record(*w, "stack overflow", "the local variables of a thread need more than 256 KiB", where, w->running);
    } else {
        record(*w, "illegal access",
               "an access far outside of every array, or a misaligned one of a vector type (mode=\"check\" tells which)", where,
               w->running);
    }
    park();  // never resumed
}

static void on_interrupt(int number, siginfo_t* info, void* context) {
    if (!interrupt_flag.exchange(true)) {
        for (int i = 0; i < kSlots; ++i)
            if (slot_used[i].load() && !pthread_equal(slot_thread[i], pthread_self())) pthread_kill(slot_thread[i], number);
        if (old_interrupt.sa_flags & SA_SIGINFO)
            old_interrupt.sa_sigaction(number, info, context);
        else
            old_interrupt.sa_handler(number);
    }
    // Only the kernel's own code may be left for good: the C library or the run time might hold a lock.
    Worker* w = worker;
    if (w != nullptr && w->running != nullptr && in_module(*w, program_counter(context))) {
        record(*w, "interrupted", "the launch was interrupted", place(program_counter(context) + 1), w->running);
        park();
    }
}

SignalGuard::SignalGuard() {
    const std::lock_guard<std::mutex> lock(process_mutex);
    if (guards++ > 0) return;
    interrupt_flag = false;
    struct sigaction action {};
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;  // the handlers do not return: nothing may stay blocked
    action.sa_sigaction = on_fault;
    for (int i = 0; i < 4; ++i) sigaction(kFaults[i], &action, &old_faults[i]);
    sigaction(SIGINT, nullptr, &old_interrupt);
    const bool handled = (old_interrupt.sa_flags & SA_SIGINFO) ||
                         (old_interrupt.sa_handler != SIG_DFL && old_interrupt.sa_handler != SIG_IGN);
    interrupt_taken = handled;
    if (!handled) return;
    action.sa_sigaction = on_interrupt;
    sigaction(SIGINT, &action, nullptr);
}

SignalGuard::~SignalGuard() {
    const std::lock_guard<std::mutex> lock(process_mutex);
    if (--guards > 0) return;
    for (int i = 0; i < 4; ++i) sigaction(kFaults[i], &old_faults[i], nullptr);
    if (interrupt_taken) sigaction(SIGINT, &old_interrupt, nullptr);
}

ThreadGuard::ThreadGuard(Worker& w) : slot_(-1) {
    static_assert(sizeof(stack_t) <= sizeof old_stack_);
    stack_t stack{};
    stack.ss_sp = w.signal_stack.get();
    stack.ss_size = 64 << 10;
    sigaltstack(&stack, reinterpret_cast<stack_t*>(old_stack_));
    for (int i = 0; i < kSlots && slot_ < 0; ++i) {
        if (slot_used[i].load(std::memory_order_relaxed)) continue;
        const std::lock_guard<std::mutex> lock(process_mutex);
        if (slot_used[i].load()) continue;
        slot_thread[i] = pthread_self();
        slot_used[i] = true;
        slot_ = i;
    }
    worker = &w;
}

ThreadGuard::~ThreadGuard() {
    worker = nullptr;
    if (slot_ >= 0) slot_used[slot_] = false;
    sigaltstack(reinterpret_cast<stack_t*>(old_stack_), nullptr);
}

}  // namespace cudasim
