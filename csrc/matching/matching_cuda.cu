// Anchor matching on a GPU: the two sweeps of the CPU source, one thread for each anchor.
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>

#include <optional>

#include "../cuda_launch.h"
#include "matching_arguments.h"

namespace detkit {
namespace {

// Raises best[g] to the best IoU of box g with any anchor. The IoUs are not negative, so that their bits
// order as integers do, and the result does not depend on the order of the threads.
__global__ void raise_best_of_boxes(
    const Box* anchors, int64_t count, const Box* boxes, int64_t box_count, int32_t* best) {
  for (int64_t a = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; a < count;
       a += int64_t(gridDim.x) * blockDim.x) {
    const Box anchor = anchors[a];
    const float area = box_area(anchor);
    for (int64_t g = 0; g < box_count; ++g) {
      const float iou = box_iou(anchor, area, boxes[g], box_area(boxes[g]));
      if (iou > 0.0f) {
        atomicMax(&best[g], __float_as_int(iou));
      }
    }
  }
}

// Matches every anchor. best_of_boxes is null without low-quality matches.
__global__ void match_each(
    const Box* anchors,
    int64_t count,
    const Box* boxes,
    int64_t box_count,
    const int32_t* best_of_boxes,
    Thresholds thresholds,
    int32_t* matches) {
  for (int64_t a = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; a < count;
       a += int64_t(gridDim.x) * blockDim.x) {
    const Box anchor = anchors[a];
    const float area = box_area(anchor);
    float best = 0.0f;
    int32_t match = BACKGROUND;
    bool restored = false;
    for (int64_t g = 0; g < box_count; ++g) {
      const float iou = box_iou(anchor, area, boxes[g], box_area(boxes[g]));
      restored |= iou > 0.0f && best_of_boxes && __float_as_int(iou) == best_of_boxes[g];
      if (iou > best) {
        best = iou;
        match = static_cast<int32_t>(g);
      }
    }
    matches[a] = decide(best, match, restored, thresholds);
  }
}

// The best IoU of each box, as bits of a float in int32 [G].
Tensor best_of_boxes(const Tensor& anchors, const Tensor& boxes, cudaStream_t stream) {
  Tensor best = torch::stable::new_empty(anchors, {boxes.size(0)}, ScalarType::Int);
  torch::stable::zero_(best);
  if (boxes.size(0) > 0) {
    raise_best_of_boxes<<<blocks_for(anchors.size(0)), THREADS_PER_BLOCK, 0, stream>>>(
        box_data(anchors), anchors.size(0), box_data(boxes), boxes.size(0),
        static_cast<int32_t*>(best.data_ptr()));
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }
  return best;
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
  const int64_t count = anchors.size(0);
  const Thresholds thresholds{static_cast<float>(foreground_iou), static_cast<float>(background_iou)};
  Tensor result = empty_matches(anchors, boxes);
  int32_t* matches = static_cast<int32_t*>(result.data_ptr());
  if (count == 0) {
    return result;
  }
  for (const Tensor& image_boxes : boxes) {
    std::optional<Tensor> best;
    if (low_quality) {
      best = best_of_boxes(anchors, image_boxes, stream);
    }
    match_each<<<blocks_for(count), THREADS_PER_BLOCK, 0, stream>>>(
        box_data(anchors), count, box_data(image_boxes), image_boxes.size(0),
        best ? static_cast<const int32_t*>(best->data_ptr()) : nullptr, thresholds, matches);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
    matches += count;
  }
  return result;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detkit, CUDA, library) {
  library.impl("match_anchors", TORCH_BOX(&match_anchors_cuda));
}

}  // namespace detkit
