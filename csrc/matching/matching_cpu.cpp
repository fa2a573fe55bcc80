// Anchor matching on a CPU, in two sweeps that both compute the IoUs they need: the first finds the best IoU
// of every box, the second matches the anchors. Beside the result only the boxes of one image are held.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <mutex>

#include "matching_arguments.h"

namespace detkit {
namespace {

constexpr int64_t PAIRS_PER_TASK = 65536;

// The boxes of one image.
struct ImageBoxes {
  const Box* boxes;
  std::vector<float> areas;

  explicit ImageBoxes(const Tensor& tensor) : boxes(box_data(tensor)) {
    areas.reserve(tensor.size(0));
    for (int64_t g = 0; g < tensor.size(0); ++g) {
      areas.push_back(box_area(boxes[g]));
    }
  }

  int64_t size() const {
    return static_cast<int64_t>(areas.size());
  }
};

// Raises best[g] to the best IoU of box g with the anchors from begin to end.
void raise_best_of_boxes(
    const Box* anchors, int64_t begin, int64_t end, const ImageBoxes& image, std::vector<float>& best) {
  for (int64_t a = begin; a < end; ++a) {
    const float area = box_area(anchors[a]);
    for (int64_t g = 0; g < image.size(); ++g) {
      best[g] = std::max(best[g], box_iou(anchors[a], area, image.boxes[g], image.areas[g]));
    }
  }
}

// Matches the anchors from begin to end. best_of_boxes is null without low-quality matches.
void match_range(
    const Box* anchors,
    int64_t begin,
    int64_t end,
    const ImageBoxes& image,
    const float* best_of_boxes,
    Thresholds thresholds,
    int32_t* matches) {
  for (int64_t a = begin; a < end; ++a) {
    const float area = box_area(anchors[a]);
    float best = 0.0f;
    int32_t match = BACKGROUND;
    bool restored = false;
    for (int64_t g = 0; g < image.size(); ++g) {
      const float iou = box_iou(anchors[a], area, image.boxes[g], image.areas[g]);
      if (iou > 0.0f) {
        restored |= best_of_boxes && iou == best_of_boxes[g];
        match = iou > best ? static_cast<int32_t>(g) : match;
        best = std::max(best, iou);
      }
    }
    matches[a] = decide(best, match, restored, thresholds);
  }
}

std::vector<float> best_of_boxes(const Box* anchors, int64_t count, const ImageBoxes& image, int64_t grain) {
  std::vector<float> best(image.size(), 0.0f);
  std::mutex mutex;
  torch::stable::parallel_for(0, count, grain, [&](int64_t begin, int64_t end) {
    std::vector<float> task_best(image.size(), 0.0f);
    raise_best_of_boxes(anchors, begin, end, image, task_best);
    const std::lock_guard<std::mutex> lock(mutex);
    std::transform(best.begin(), best.end(), task_best.begin(), best.begin(), [](float a, float b) {
      return std::max(a, b);
    });
  });
  return best;
}

Tensor match_anchors_cpu(
    const Tensor& anchors,
    const std::vector<Tensor>& boxes,
    double foreground_iou,
    double background_iou,
    bool low_quality) {
  check_arguments(anchors, boxes);
  const Box* data = box_data(anchors);
  const int64_t count = anchors.size(0);
  const Thresholds thresholds{static_cast<float>(foreground_iou), static_cast<float>(background_iou)};
  Tensor result = empty_matches(anchors, boxes);
  int32_t* matches = static_cast<int32_t*>(result.data_ptr());
  for (const Tensor& image_boxes : boxes) {
    const ImageBoxes image(image_boxes);
    const int64_t grain = std::max<int64_t>(1, PAIRS_PER_TASK / std::max<int64_t>(1, image.size()));
    std::vector<float> best;
    if (low_quality) {
      best = best_of_boxes(data, count, image, grain);
    }
    torch::stable::parallel_for(0, count, grain, [&](int64_t begin, int64_t end) {
      match_range(data, begin, end, image, low_quality ? best.data() : nullptr, thresholds, matches);
    });
    matches += count;
  }
  return result;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detkit, CPU, library) {
  library.impl("match_anchors", TORCH_BOX(&match_anchors_cpu));
}

}  // namespace detkit
