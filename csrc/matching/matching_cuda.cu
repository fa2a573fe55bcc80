// Anchor matching on a GPU, in the two sweeps of the CPU source, each of which is one launch for up to 64 images.
//
// A warp takes 64 neighbouring anchors, a tile. It asks of 32 boxes at a time, one to a lane, which of them may matter
// to the tile, and compares only those with its anchors: nothing is shared beyond the warp but each box's best IoU.
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>

#include <cmath>

#include "../cuda_launch.h"
#include "../labels.h"
#include "matching_arguments.h"

namespace detkit {
namespace {

constexpr int ANCHORS_PER_LANE = 2;
constexpr int ANCHORS_PER_TILE = ANCHORS_PER_LANE * THREADS_PER_WARP;
constexpr int TILES_PER_BLOCK = THREADS_PER_BLOCK / THREADS_PER_WARP;
constexpr int ANCHORS_PER_BLOCK = ANCHORS_PER_TILE * TILES_PER_BLOCK;
constexpr int IMAGES_PER_LAUNCH = 64;
constexpr int PLACES = 32;               // among the anchors, at each of which every 32nd block begins
constexpr int64_t MOST_BOXES = 1 << 30;  // and anchors, so that their tiles can be counted in 32 bits

struct Image {
  const float4* boxes;
  int32_t count;
  float* best;  // of each box the best IoU with any anchor; null where it is not asked for
};

struct Batch {
  const float4* anchors;
  int32_t anchor_count;
  float foreground_iou;
  float background_iou;
  int32_t* matches;  // of the first image
  int32_t image_count = 0;
  Image images[IMAGES_PER_LAUNCH] = {};
};

__device__ Box load_box(const float4* boxes, int64_t index) {
  const float4 box = __ldg(boxes + index);
  return {box.x, box.y, box.z, box.w};
}

__device__ float warp_least(float value) {
  for (int distance = THREADS_PER_WARP / 2; distance > 0; distance /= 2) {
    value = lesser(value, __shfl_xor_sync(ALL_LANES, value, distance));
  }
  return value;
}

__device__ float warp_greatest(float value) {
  return -warp_least(-value);
}

// The anchors of a warp, two to a lane, and the best box of each.
struct Tile {
  int32_t first;  // the lane's first anchor; its next is THREADS_PER_WARP later
  Box anchors[ANCHORS_PER_LANE];
  float areas[ANCHORS_PER_LANE];
  AnchorBlock block;
  float best[ANCHORS_PER_LANE];
  int32_t match[ANCHORS_PER_LANE];

  __device__ Tile(const Batch& batch, int32_t index)
      : first(index * ANCHORS_PER_TILE + static_cast<int32_t>(threadIdx.x) % THREADS_PER_WARP),
        block{{INFINITY, INFINITY, -INFINITY, -INFINITY}, INFINITY, -INFINITY} {
    for (int a = 0; a < ANCHORS_PER_LANE; ++a) {
      // Places without an anchor touch nothing.
      anchors[a] = {INFINITY, INFINITY, -INFINITY, -INFINITY};
      areas[a] = 0.0f;
      if (anchor(a) < batch.anchor_count) {
        anchors[a] = load_box(batch.anchors, anchor(a));
        areas[a] = box_area(anchors[a]);
        block.least_area = lesser(areas[a], block.least_area);
        block.most_area = greater(areas[a], block.most_area);
      }
      block.extent.x1 = lesser(anchors[a].x1, block.extent.x1);
      block.extent.y1 = lesser(anchors[a].y1, block.extent.y1);
      block.extent.x2 = greater(anchors[a].x2, block.extent.x2);
      block.extent.y2 = greater(anchors[a].y2, block.extent.y2);
    }
    block.extent.x1 = warp_least(block.extent.x1);
    block.extent.y1 = warp_least(block.extent.y1);
    block.extent.x2 = warp_greatest(block.extent.x2);
    block.extent.y2 = warp_greatest(block.extent.y2);
    block.least_area = warp_least(block.least_area);
    block.most_area = warp_greatest(block.most_area);
  }

  __device__ int32_t anchor(int a) const {
    return first + a * THREADS_PER_WARP;
  }

  // Calls function(index, box, its area) for the boxes that may reach least_iou(index) with an anchor, in order.
  template <typename LeastIou, typename Function>
  __device__ void for_each_candidate(const Image& image, const LeastIou& least_iou, const Function& function) const {
    const int32_t lane = static_cast<int32_t>(threadIdx.x) % THREADS_PER_WARP;
    for (int32_t begin = 0; begin < image.count; begin += THREADS_PER_WARP) {
      bool candidate = false;
      if (begin + lane < image.count) {
        const Box box = load_box(image.boxes, begin + lane);
        candidate = may_reach(block, box, box_area(box), least_iou(begin + lane));
      }
      for (uint32_t left = __ballot_sync(ALL_LANES, candidate); left != 0; left &= left - 1) {
        const int32_t g = begin + __ffs(static_cast<int>(left)) - 1;
        const Box box = load_box(image.boxes, g);
        function(g, box, box_area(box));
      }
    }
  }

  // Finds the best of the boxes that may reach least_iou(index) for each anchor, the first of equal ones. Calls
  // found(index, the lane's best IoU) for each of them.
  template <typename LeastIou, typename Function>
  __device__ void match_boxes(const Image& image, const LeastIou& least_iou, const Function& found) {
    for (int a = 0; a < ANCHORS_PER_LANE; ++a) {
      best[a] = 0.0f;
      match[a] = BACKGROUND;
    }
    for_each_candidate(image, least_iou, [&](int32_t g, const Box& box, float area) {
      float best_of_box = 0.0f;
      for (int a = 0; a < ANCHORS_PER_LANE; ++a) {
        const float iou = box_iou(anchors[a], areas[a], box, area);
        match[a] = iou > best[a] ? g : match[a];
        best[a] = greater(iou, best[a]);
        best_of_box = greater(iou, best_of_box);
      }
      found(g, best_of_box);
    });
  }
};

// How many blocks each image has, and how many of them begin before this one.
__device__ uint32_t turns(const Batch& batch) {
  return gridDim.x / batch.image_count;
}

__device__ uint32_t turn_of_block(const Batch& batch) {
  return blockIdx.x / batch.image_count;
}

// The tile of this warp and its image. Neighbouring blocks are far apart among the anchors: the first ones to run learn
// of each box what IoU it can reach, and that rules most of the later comparisons out.
struct Place {
  const Image& image;
  int32_t* matches;
  int32_t tile;
  bool exists;

  __device__ Place(const Batch& batch, uint32_t turn)
      : image(batch.images[blockIdx.x % batch.image_count]),
        matches(batch.matches + int64_t(blockIdx.x % batch.image_count) * batch.anchor_count) {
    const auto block = static_cast<int32_t>(turn % PLACES * (turns(batch) / PLACES) + turn / PLACES);
    tile = block * TILES_PER_BLOCK + static_cast<int32_t>(threadIdx.x) / THREADS_PER_WARP;
    exists = tile * ANCHORS_PER_TILE < batch.anchor_count;
  }
};

// Matches the anchors as if there were no low-quality matches, and raises each box's best IoU.
__global__ void __launch_bounds__(THREADS_PER_BLOCK) match(const __grid_constant__ Batch batch) {
  const Place place(batch, turn_of_block(batch));
  if (!place.exists) {
    return;
  }
  const Image& image = place.image;
  Tile tile(batch, place.tile);
  // A box matters to an anchor from the background threshold on, and to its own best from that on. What another warp
  // has raised meanwhile may be seen or not: the results are the same.
  const auto least_iou = [&](int32_t g) {
    return image.best ? lesser(__ldcg(image.best + g), batch.background_iou) : batch.background_iou;
  };
  tile.match_boxes(image, least_iou, [&](int32_t g, float iou) {
    // As integers, the bits of numbers that are not negative have the same order.
    const int32_t top = __reduce_max_sync(ALL_LANES, __float_as_int(iou));
    if (image.best && top > 0 && threadIdx.x % THREADS_PER_WARP == 0) {
      atomicMax(reinterpret_cast<int32_t*>(image.best + g), top);
    }
  });
  for (int a = 0; a < ANCHORS_PER_LANE; ++a) {
    if (tile.anchor(a) < batch.anchor_count) {
      const int32_t unmatched = tile.best[a] < batch.background_iou ? BACKGROUND : IGNORE;
      place.matches[tile.anchor(a)] = tile.best[a] < batch.foreground_iou ? unmatched : tile.match[a];
    }
  }
}

// Gives every anchor with which some box has its best IoU back to the box with which it has its own.
__global__ void __launch_bounds__(THREADS_PER_BLOCK) restore(const __grid_constant__ Batch batch) {
  // Backwards, so that the coarsest levels, whose tiles have the most candidates, are not among the last to begin.
  const Place place(batch, turns(batch) - 1 - turn_of_block(batch));
  if (!place.exists) {
    return;
  }
  const Image& image = place.image;
  Tile tile(batch, place.tile);
  bool marked[ANCHORS_PER_LANE] = {};
  const auto best_iou = [&](int32_t g) {
    return image.best[g] > 0.0f ? image.best[g] : INFINITY;
  };
  tile.for_each_candidate(image, best_iou, [&](int32_t g, const Box& box, float area) {
    for (int a = 0; a < ANCHORS_PER_LANE; ++a) {
      const float iou = box_iou(tile.anchors[a], tile.areas[a], box, area);
      marked[a] |= iou > 0.0f && iou == image.best[g];
    }
  });
  bool any = false;
  for (const bool mark : marked) {
    any |= mark;
  }
  if (!__any_sync(ALL_LANES, any)) {
    return;
  }
  // Their own best may be with any box, also with one too far below the background threshold to have been looked at.
  tile.match_boxes(image, [](int32_t) { return 0.0f; }, [](int32_t, float) {});
  for (int a = 0; a < ANCHORS_PER_LANE; ++a) {
    if (marked[a]) {
      place.matches[tile.anchor(a)] = tile.match[a];
    }
  }
}

// The same boxes where 16 bytes can be read at once: a view can begin anywhere.
Tensor aligned(const Tensor& boxes) {
  return reinterpret_cast<uintptr_t>(boxes.data_ptr()) % sizeof(float4) == 0 ? boxes : torch::stable::clone(boxes);
}

const float4* vectors(const Tensor& boxes) {
  return static_cast<const float4*>(boxes.data_ptr());
}

int32_t count_of(const Tensor& boxes) {
  STD_TORCH_CHECK(
      boxes.size(0) <= MOST_BOXES, "match_anchors: on a GPU there can be ", MOST_BOXES,
      " anchors, and as many boxes to an image; found ", boxes.size(0));
  return static_cast<int32_t>(boxes.size(0));
}

void start(const Batch& batch, bool low_quality, cudaStream_t stream) {
  const int64_t blocks = parts(parts(batch.anchor_count, ANCHORS_PER_BLOCK), PLACES) * PLACES;
  const auto grid = static_cast<uint32_t>(blocks * batch.image_count);
  match<<<grid, THREADS_PER_BLOCK, 0, stream>>>(batch);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  if (low_quality) {
    restore<<<grid, THREADS_PER_BLOCK, 0, stream>>>(batch);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }
}

// A place for the best IoU of every box of all images, 0 where no anchor has been compared.
Tensor zero_best(const Tensor& anchors, const std::vector<Tensor>& boxes) {
  int64_t count = 0;
  for (const Tensor& image_boxes : boxes) {
    count += image_boxes.size(0);
  }
  return torch::stable::new_zeros(anchors, {count});
}

Tensor match_anchors_cuda(
    const Tensor& anchors,
    const std::vector<Tensor>& boxes,
    double foreground_iou,
    double background_iou,
    bool low_quality) {
  check_arguments(anchors, boxes);
  const torch::stable::accelerator::DeviceGuard guard(anchors.get_device_index());
  const cudaStream_t stream = current_stream(anchors);
  Tensor matches = empty_matches(anchors, boxes);
  if (matches.numel() == 0) {
    return matches;
  }
  std::vector<Tensor> read = {aligned(anchors)};
  const Tensor best = zero_best(anchors, low_quality ? boxes : std::vector<Tensor>{});
  float* next_best = low_quality ? static_cast<float*>(best.data_ptr()) : nullptr;
  Batch batch{
      vectors(read[0]), count_of(anchors), static_cast<float>(foreground_iou), static_cast<float>(background_iou),
      static_cast<int32_t*>(matches.data_ptr())};
  for (const Tensor& image_boxes : boxes) {
    read.push_back(aligned(image_boxes));
    const int32_t count = count_of(image_boxes);
    batch.images[batch.image_count++] = {vectors(read.back()), count, next_best};
    next_best += low_quality ? count : 0;
    if (batch.image_count == IMAGES_PER_LAUNCH || read.size() > boxes.size()) {
      start(batch, low_quality, stream);
      batch.matches += int64_t(batch.image_count) * batch.anchor_count;
      batch.image_count = 0;
    }
  }
  return matches;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detkit, CUDA, library) {
  library.impl("match_anchors", TORCH_BOX(&match_anchors_cuda));
}

}  // namespace detkit
