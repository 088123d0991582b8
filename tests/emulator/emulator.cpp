#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "../../csrc/cuda/device.h"
#include "../../csrc/cuda/kernels.h"

namespace rnr::cuda::emulator {
namespace {

constexpr size_t kStackBytes = 64 * 1024;

// A barrier of some threads, in phases: it opens when all that have not returned have arrived.
struct Barrier {
  int members = 0, arrived = 0;
  uint64_t phase = 0;

  void arrive() {
    ++arrived;
    open();
  }
  void leave() {
    --members;
    open();
  }

 private:
  void open() {
    if (arrived > 0 && arrived >= members) {
      arrived = 0;
      ++phase;
    }
  }
};

struct Warp {
  Barrier barrier;
  uint64_t values[2][kWarpSize];
  const void* places[2];
};

struct Block {
  Barrier barrier;
  std::vector<unsigned char> memory;
  unsigned char* shared = nullptr;
  bool has_begun = false;
  bool any[2] = {false, false};
  Warp warps[kWarps];
};

struct Coroutine : Thread {
  jmp_buf context;
  ucontext_t entry;
  std::unique_ptr<unsigned char[]> stack{new unsigned char[kStackBytes]};
  bool has_begun = false, is_done = false;
  Barrier* waits_for = nullptr;
  uint64_t phase = 0, cluster_phase = 0;
  uint64_t num_exchanges = 0, num_votes = 0;
};

struct Cluster {
  Barrier barrier;
  std::vector<Block> blocks;
  std::vector<Coroutine> threads;
  const std::function<void()>* kernel = nullptr;
};

thread_local Cluster* cluster;
thread_local Coroutine* running;
thread_local jmp_buf scheduler;

Block& block() { return cluster->blocks[running->rank]; }
Warp& warp() { return block().warps[running->index / kWarpSize]; }

void wait(Barrier* barrier, uint64_t phase) {
  if (barrier->phase != phase) return;
  running->waits_for = barrier;
  running->phase = phase;
  if (_setjmp(running->context) == 0) _longjmp(scheduler, 1);
}

void sync(Barrier* barrier) {
  const uint64_t phase = barrier->phase;
  barrier->arrive();
  wait(barrier, phase);
}

[[noreturn]] void give_up(const char* what) {
  fprintf(stderr, "emulated kernel: %s\n", what);
  abort();
}

void begin() {
  block().has_begun = true;
  (*cluster->kernel)();
  running->is_done = true;
  Block& mine = block();
  warp().barrier.leave();
  mine.barrier.leave();
  cluster->barrier.leave();
  if (mine.barrier.members == 0) std::fill(mine.memory.begin(), mine.memory.end(), 0xff);
  _longjmp(scheduler, 1);
}

bool is_ready(const Coroutine& thread) {
  return !thread.is_done &&
         (thread.waits_for == nullptr || thread.waits_for->phase != thread.phase);
}

void resume(Coroutine* thread) {
  running = thread;
  thread->waits_for = nullptr;
  if (_setjmp(scheduler) != 0) return;
  if (thread->has_begun) _longjmp(thread->context, 1);
  thread->has_begun = true;
  getcontext(&thread->entry);
  thread->entry.uc_stack = {thread->stack.get(), 0, kStackBytes};
  thread->entry.uc_link = nullptr;
  makecontext(&thread->entry, begin, 0);
  setcontext(&thread->entry);
}

// Lets a block's threads take turns as long as they can without other blocks: what needs those must
// wait for them. How many turns that took.
int64_t run_block(int rank, bool backwards) {
  Coroutine* threads = &cluster->threads[rank * kThreads];
  int64_t turns = 0;
  for (int64_t before = -1; turns != before;) {
    before = turns;
    for (int i = 0; i < kThreads; ++i) {
      Coroutine* thread = &threads[backwards ? kThreads - 1 - i : i];
      if (!is_ready(*thread)) continue;
      ++turns;
      resume(thread);
    }
  }
  return turns;
}

void run_cluster(int64_t first_block, bool backwards) {
  const int count = static_cast<int>(cluster->threads.size());
  for (int i = 0; i < count; ++i) {
    Coroutine& thread = cluster->threads[i];
    const int rank = i / kThreads;
    thread.index = i % kThreads;
    thread.rank = rank;
    thread.cluster = static_cast<int>(cluster->blocks.size());
    thread.block = first_block + rank;
    thread.shared = cluster->blocks[rank].shared;
    thread.has_begun = thread.is_done = false;
    thread.waits_for = nullptr;
    thread.num_exchanges = thread.num_votes = 0;
  }
  cluster->barrier = {count, 0, 0};
  for (Block& each : cluster->blocks) {
    each.barrier = {kThreads, 0, 0};
    each.has_begun = false;
    std::fill(each.memory.begin(), each.memory.end(), 0xa5);
    for (Warp& warp : each.warps) warp.barrier = {kWarpSize, 0, 0};
  }
  const int blocks = static_cast<int>(cluster->blocks.size());
  int64_t turns = 1;
  while (cluster->barrier.members > 0) {
    if (turns == 0) give_up("it waits for ever");
    turns = 0;
    for (int b = 0; b < blocks; ++b) turns += run_block(backwards ? blocks - 1 - b : b, backwards);
  }
}

}  // namespace

const Thread& current() { return *running; }

void sync_block() { sync(&block().barrier); }
void sync_warp() { sync(&warp().barrier); }

void arrive_cluster() {
  running->cluster_phase = cluster->barrier.phase;
  cluster->barrier.arrive();
}
void wait_cluster() { wait(&cluster->barrier, running->cluster_phase); }

uint64_t* exchange(uint64_t value, const void* place) {
  // Two sets in turn: no lane is two exchanges ahead of another.
  const int set = running->num_exchanges++ % 2;
  uint64_t* values = warp().values[set];
  if (warp().barrier.arrived == 0) warp().places[set] = place;
  if (warp().places[set] != place) give_up("lanes of a warp meet at different exchanges");
  values[running->index % kWarpSize] = value;
  sync_warp();
  return values;
}

bool any_in_block(bool value) {
  Block& mine = block();
  bool& any = mine.any[running->num_votes++ % 2];
  any |= value;
  sync_block();
  const bool result = any;
  sync_block();
  any = false;
  return result;
}

void* remote(void* address, int rank) {
  const int64_t offset = static_cast<unsigned char*>(address) - running->shared;
  const Block& mine = block();
  if (offset < 0 || offset >= static_cast<int64_t>(mine.memory.size())) {
    give_up("an address that is not in shared memory");
  }
  Block& other = cluster->blocks[rank];
  if (!other.has_begun) give_up("shared memory of a block that has not begun");
  if (other.barrier.members == 0) give_up("shared memory of a block that has returned");
  return other.shared + offset;
}

void run(const std::function<void()>& kernel, int64_t blocks, int size, int64_t shared) {
  static std::atomic<uint64_t> num_launches{0};
  const bool backwards = num_launches++ % 2 != 0;
  Cluster mine;
  mine.kernel = &kernel;
  mine.blocks = std::vector<Block>(size);
  for (Block& each : mine.blocks) {
    each.memory.resize(shared + 16);
    const auto start = reinterpret_cast<uintptr_t>(each.memory.data());
    each.shared = each.memory.data() + (16 - start % 16) % 16;
  }
  mine.threads = std::vector<Coroutine>(static_cast<size_t>(size) * kThreads);
  cluster = &mine;
  for (int64_t first = 0; first < blocks; first += size) run_cluster(first, backwards);
  cluster = nullptr;
}

}  // namespace rnr::cuda::emulator

namespace rnr::cuda {

Device use_device(int) { return {0, 132, true, nullptr}; }
std::string problem_of(int) { return ""; }

}  // namespace rnr::cuda
