// Runs CUDA kernels on the host, and finds what a GPU would do wrong without a word.
//
// The lanes of a warp are fibers, which wait for one another at collectives. Warps run in a random order, a few at a
// time, and so do the lanes between two collectives. A launch throws where a GPU's behaviour would be undefined: where
// the lanes of a warp part, where memory is touched that belongs to no tensor of the op, where an address is not
// aligned or an integer overflows. All but the first are the compiler's checks (host_kernels.py), which call functions
// below.
//
// It cannot show what stands under __CUDA_ARCH__ (a GPU's own instructions), the order in which a GPU's memory sees
// what several threads write, lanes that meet at one collective in different turns of a loop, or speed.
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <random>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "cuda_runtime.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

dim3 threadIdx = 0, blockIdx = 0, gridDim = 0;
// Where this library begins and ends; not hidden, they would be Python's.
extern "C" __attribute__((visibility("hidden"))) const char __ehdr_start, _end;

namespace on_host {
namespace {

constexpr size_t STACK = (1 << 16) + 320;  // not a power of two: all stacks would share a few lines of the cache
constexpr int WARPS_AT_ONCE = 4;
constexpr uint32_t MOST_BLOCKS_X = 0x7fffffff, MOST_BLOCKS_Y = 65535, MOST_THREADS = 1024;

enum class State { ready, waiting, returned };
using Point = void*[5];  // of a program, as __builtin_setjmp keeps it

struct Lane {
  State state = State::returned;
  std::source_location place;  // where it waits, and what with
  uint64_t offer = 0;
  bool begun = false;
  Point here;
  ucontext_t beginning;
  std::unique_ptr<char[]> stack = std::make_unique<char[]>(STACK);
};

struct Warp {
  Lane lanes[LANES];
  Offers offers;
  dim3 block = 0;
  uint32_t first_thread = 0;
  bool busy = false;
};

Warp warps[WARPS_AT_ONCE];
Warp* running_warp = nullptr;
Lane* running_lane = nullptr;
Point scheduler;
Call call;
std::string failure;
std::minstd_rand random_order;
uint32_t part_of_warps = 1;
std::vector<Memory> tensors;   // whose data the running op has asked for
std::vector<Memory> readable;  // these, the arguments of the launch, and the constants of this library

// The compiler's setjmp wants both in functions of their own. The system's, and swapcontext, take many times as long.
[[noreturn, gnu::noinline]] void go_to(Point& point) {
  __builtin_longjmp(point, 1);
}

[[gnu::noinline]] void leave_lane() {
  if (__builtin_setjmp(running_lane->here) == 0) {
    go_to(scheduler);
  }
}

// Ends the launch; the lane is left where it is.
[[noreturn]] void refuse(const std::string& what) {
  std::ostringstream text;
  text << what;
  if (running_lane == nullptr) {
    std::fprintf(stderr, "on the host, in no kernel: %s\n", what.c_str());
    std::abort();
  }
  text << " (thread " << threadIdx.x << " of block " << blockIdx.x << ", " << blockIdx.y << ")";
  failure = text.str();
  go_to(scheduler);
}

// A fiber, which serves one thread after another.
void live() {
  for (;;) {
    call.function(call.argument);
    running_lane->state = State::returned;
    leave_lane();
  }
}

// Runs a lane until it waits or returns.
[[gnu::noinline]] void advance(Lane& lane) {
  running_lane = &lane;
  lane.state = State::ready;
  if (__builtin_setjmp(scheduler) == 0) {
    if (lane.begun) {
      go_to(lane.here);
    }
    lane.begun = true;
    getcontext(&lane.beginning);
    lane.beginning.uc_stack.ss_sp = lane.stack.get();
    lane.beginning.uc_stack.ss_size = STACK;
    makecontext(&lane.beginning, live, 0);
    setcontext(&lane.beginning);
  }
  running_lane = nullptr;
}

std::string text_of(const std::source_location& place) {
  return std::string(place.file_name()) + ":" + std::to_string(place.line());
}

bool same(const std::source_location& a, const std::source_location& b) {
  return a.line() == b.line() && a.column() == b.column() && std::string_view(a.file_name()) == b.file_name();
}

// All lanes must have returned, or wait at one place.
void check_lanes_agree(const Warp& warp) {
  const auto text = [](const Lane& lane) {
    return lane.state == State::returned ? "has returned" : "waits at " + text_of(lane.place);
  };
  const Lane& first = warp.lanes[0];
  for (const Lane& lane : warp.lanes) {
    if (lane.state != first.state || (lane.state == State::waiting && !same(lane.place, first.place))) {
      failure = "the lanes of a warp part: lane 0 " + text(first) + ", lane " + std::to_string(&lane - warp.lanes) +
          " " + text(lane);
      return;
    }
  }
}

// Runs each lane up to the next collective.
void advance(Warp& warp) {
  running_warp = &warp;
  blockIdx = warp.block;
  const uint32_t first = random_order() / 16, step = random_order() / 16 | 1;
  for (uint32_t turn = 0; turn < LANES && failure.empty(); ++turn) {
    const uint32_t lane = (first + turn * step) % LANES;
    threadIdx.x = warp.first_thread + lane;
    advance(warp.lanes[lane]);
  }
  if (failure.empty()) {
    check_lanes_agree(warp);
  }
  warp.busy = warp.lanes[0].state == State::waiting;
  for (int lane = 0; lane < LANES; ++lane) {
    warp.offers[lane] = warp.lanes[lane].offer;
  }
}

void run_warps(dim3 grid, uint32_t warps_per_block) {
  std::vector<uint32_t> order(size_t(grid.x) * grid.y * warps_per_block);
  std::iota(order.begin(), order.end(), 0);
  std::erase_if(order, [](uint32_t) { return random_order() / 16 % part_of_warps != 0; });
  std::shuffle(order.begin(), order.end(), random_order);
  int busy = 0;
  while ((busy > 0 || !order.empty()) && failure.empty()) {
    Warp& warp = warps[random_order() / 16 % WARPS_AT_ONCE];
    if (!warp.busy && order.empty()) {
      continue;
    }
    if (!warp.busy) {
      const uint32_t block = order.back() / warps_per_block;
      warp.block = {block % grid.x, block / grid.x};
      warp.first_thread = order.back() % warps_per_block * LANES;
      order.pop_back();
      ++busy;
    }
    advance(warp);
    busy -= !warp.busy;
  }
}

bool within(const void* at, size_t size, const Memory& memory) {
  const auto offset = reinterpret_cast<uintptr_t>(at) - reinterpret_cast<uintptr_t>(memory.data);
  return offset <= memory.size && size <= memory.size - offset;
}

void check_access(const void* at, size_t size, bool write) {
  if (running_lane == nullptr || within(at, size, {running_lane->stack.get(), STACK})) {
    return;
  }
  for (const Memory& memory : write ? tensors : readable) {
    if (within(at, size, memory)) {
      return;
    }
  }
  std::ostringstream text;
  text << (write ? "a write of " : "a read of ") << size << " bytes at " << at << ", outside the tensors at";
  for (const Memory& tensor : tensors) {
    text << " " << tensor.data << " + " << tensor.size;
  }
  refuse(text.str());
}

}  // namespace

const Offers& meet(uint32_t mask, uint64_t offer, const std::source_location& place) {
  if (mask != 0xffffffff) {
    refuse("a collective of a part of a warp at " + text_of(place));
  }
  running_lane->state = State::waiting;
  running_lane->place = place;
  running_lane->offer = offer;
  leave_lane();
  return running_warp->offers;
}

int lane() {
  return static_cast<int>(threadIdx.x % LANES);
}

void run(
    dim3 grid,
    dim3 block,
    size_t shared_memory,
    cudaStream_t stream,
    const Call& thread,
    std::initializer_list<Memory> arguments) {
  const bool possible = grid.x - 1 < MOST_BLOCKS_X && grid.y - 1 < MOST_BLOCKS_Y && block.x - 1 < MOST_THREADS;
  const bool known = grid.z * block.y * block.z == 1 && block.x % LANES == 0 && !shared_memory && !stream;
  if (!possible || !known) {
    throw std::runtime_error(possible ? "on the host: a launch of another form" : "on the host: an impossible grid");
  }
  readable = arguments;
  readable.push_back({&__ehdr_start, static_cast<size_t>(&_end - &__ehdr_start)});
  readable.insert(readable.end(), tensors.begin(), tensors.end());
  call = thread;
  gridDim = grid;
  run_warps(grid, block.x / LANES);
  if (failure.empty()) {
    return;
  }
  for (Warp& warp : warps) {
    warp.busy = false;
    for (Lane& lane : warp.lanes) {
      lane.begun = false;
    }
  }
  throw std::runtime_error("on the host: " + std::exchange(failure, {}));
}

}  // namespace on_host

// Chooses the order of warps and lanes.
EXPORT void seed_order(uint32_t seed) {
  on_host::random_order.seed(seed);
}

// From now on one of so many warps runs, chosen at random.
EXPORT void run_one_in(uint32_t count) {
  on_host::part_of_warps = count;
}

// What the compiler calls before an access to memory.
#define ACCESS(name, size, write)                                      \
  extern "C" void __asan_##name##size##_noabort(const void* at) {      \
    on_host::check_access(at, size, write);                            \
  }
#define ACCESSES(name, write)                                                     \
  ACCESS(name, 1, write)                                                          \
  ACCESS(name, 2, write)                                                          \
  ACCESS(name, 4, write)                                                          \
  ACCESS(name, 8, write)                                                          \
  ACCESS(name, 16, write)                                                         \
  extern "C" void __asan_##name##N_noabort(const void* at, size_t size) {         \
    on_host::check_access(at, size, write);                                       \
  }
ACCESSES(load, false)
ACCESSES(store, true)
extern "C" void __asan_handle_no_return() {}
extern "C" void __asan_before_dynamic_init(const char*) {}
extern "C" void __asan_after_dynamic_init() {}

struct CheckedPlace {
  const char* file;
  uint32_t line;
};

// What it calls where a check has failed.
#define FAILED_CHECK(name, what)                                                                   \
  extern "C" [[noreturn]] void __ubsan_handle_##name##_abort(const CheckedPlace* place) {          \
    on_host::refuse(std::string(what " at ") + place->file + ":" + std::to_string(place->line));   \
  }
FAILED_CHECK(type_mismatch_v1, "an address that is not aligned")
FAILED_CHECK(out_of_bounds, "an index out of bounds")
FAILED_CHECK(shift_out_of_bounds, "a shift out of bounds")
FAILED_CHECK(add_overflow, "an overflow")
FAILED_CHECK(sub_overflow, "an overflow")
FAILED_CHECK(mul_overflow, "an overflow")
FAILED_CHECK(negate_overflow, "an overflow")
FAILED_CHECK(divrem_overflow, "a division by zero")

// What the ops ask of torch, and the linker brings here instead (--wrap). They are the CPU's, in a namespace of their
// own; there is one stream, no error to report and no device to guard; and an op may touch the memory of the tensors
// whose data it asks for, from the first to the last of their elements.
extern "C" {

AOTITorchError __real_aoti_torch_library_init_def(const char*, const char*, uint32_t, TorchLibraryHandle*);
AOTITorchError __wrap_aoti_torch_library_init_def(
    const char*, const char* file, uint32_t line, TorchLibraryHandle* library) {
  return __real_aoti_torch_library_init_def("detkit_on_host", file, line, library);
}

AOTITorchError __real_aoti_torch_library_init_impl(
    const char*, const char*, const char*, uint32_t, TorchLibraryHandle*);
AOTITorchError __wrap_aoti_torch_library_init_impl(
    const char*, const char*, const char* file, uint32_t line, TorchLibraryHandle* library) {
  return __real_aoti_torch_library_init_impl("detkit_on_host", "CPU", file, line, library);
}

AOTITorchError __wrap_aoti_torch_get_current_cuda_stream(int32_t, void** stream) {
  *stream = nullptr;
  return 0;
}

AOTITorchError __wrap_torch_c10_cuda_check_msg(
    int32_t, const char*, const char*, uint32_t, bool, char** message) {
  *message = nullptr;
  return 0;
}

void __wrap_torch_c10_cuda_free_error_msg(char*) {}

AOTITorchError __wrap_aoti_torch_create_device_guard(int32_t, DeviceGuardHandle* guard) {
  *guard = reinterpret_cast<DeviceGuardHandle>(&on_host::tensors);
  return 0;
}

// The op is over.
AOTITorchError __wrap_aoti_torch_delete_device_guard(DeviceGuardHandle) {
  on_host::tensors.clear();
  return 0;
}

AOTITorchError __real_aoti_torch_get_data_ptr(AtenTensorHandle, void**);
AOTITorchError __wrap_aoti_torch_get_data_ptr(AtenTensorHandle tensor, void** data) {
  int64_t count = 0, dimensions = 0, *sizes = nullptr, *strides = nullptr, last = 0;
  int32_t type = 0;
  if (aoti_torch_get_numel(tensor, &count) || aoti_torch_get_dim(tensor, &dimensions) ||
      aoti_torch_get_sizes(tensor, &sizes) || aoti_torch_get_strides(tensor, &strides) ||
      aoti_torch_get_dtype(tensor, &type) || __real_aoti_torch_get_data_ptr(tensor, data)) {
    return 1;
  }
  for (int64_t dimension = 0; dimension < dimensions; ++dimension) {
    last += (sizes[dimension] - 1) * strides[dimension];
  }
  if (count > 0) {
    on_host::tensors.push_back({*data, (last + 1) * aoti_torch_dtype_element_size(type)});
  }
  return 0;
}

}  // extern "C"
