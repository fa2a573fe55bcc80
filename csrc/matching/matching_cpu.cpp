// Anchor matching on a CPU, in two sweeps over all images at once: the first matches every anchor and finds the best
// IoU of every box, the second looks at the places where such a best can be. The loops are in matching_simd.cpp.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <limits>
#include <mutex>
#include <numeric>

#include "matching_arguments.h"
#include "matching_kernels.h"

namespace detkit {
namespace {

constexpr int64_t BLOCKS_PER_TASK = 64;  // at least: each task learns anew which IoUs the boxes reach

MatchingKernels kernels() {
  return at_cpu_level([]<CpuLevel level>() { return matching_kernels<level>(); });
}

// A number that has no common divisor with count; near the golden section, whose multiples spread evenly.
int64_t coprime_step(int64_t count) {
  int64_t step = std::max<int64_t>(1, static_cast<int64_t>(0.618 * static_cast<double>(count)));
  while (std::gcd(step, count) > 1) {
    ++step;
  }
  return step;
}

// The boxes of one image, and the best IoU of each with any anchor.
struct Image {
  int64_t count;
  int64_t padded;
  std::vector<float> columns;
  std::vector<float> best;
  std::mutex mutex;

  explicit Image(const Tensor& boxes)
      : count(boxes.size(0)), padded((count + LARGEST_PACK - 1) / LARGEST_PACK * LARGEST_PACK) {
    constexpr float infinity = std::numeric_limits<float>::infinity();
    for (const float outside : {infinity, infinity, -infinity, -infinity, 0.0f}) {
      columns.insert(columns.end(), padded, outside);
    }
    best.assign(count, 0.0f);
    const Box* data = box_data(boxes);
    for (int64_t g = 0; g < count; ++g) {
      const Box& box = data[g];
      const float values[] = {box.x1, box.y1, box.x2, box.y2, box_area(box)};
      for (int64_t column = 0; column < 5; ++column) {
        columns[column * padded + g] = values[column];
      }
    }
  }

  ImageBoxes boxes() const {
    const float* first = columns.data();
    return {count, first, first + padded, first + 2 * padded, first + 3 * padded, first + 4 * padded};
  }

  void raise_best(const std::vector<float>& found) {
    const std::lock_guard<std::mutex> lock(mutex);
    std::transform(best.begin(), best.end(), found.begin(), best.begin(), [](float a, float b) {
      return std::max(a, b);
    });
  }
};

// Calls function(image, begin, end, scratch) for all blocks of all images, from several threads.
template <typename Function>
void for_each_range(std::vector<Image>& images, int64_t blocks, const Function& function) {
  const int64_t total = blocks * static_cast<int64_t>(images.size());
  torch::stable::parallel_for(0, total, BLOCKS_PER_TASK, [&](int64_t begin, int64_t end) {
    while (begin < end) {
      const int64_t index = begin / blocks;
      const int64_t first = begin % blocks;
      const int64_t last = std::min(blocks, first + end - begin);
      std::vector<float> least_iou(images[index].padded, std::numeric_limits<float>::infinity());
      std::vector<float> zeros(images[index].padded, 0.0f);
      std::vector<int32_t> candidates(images[index].padded);
      function(index, first, last, MatchingScratch{least_iou.data(), zeros.data(), candidates.data()});
      begin += last - first;
    }
  });
}

Tensor match_anchors_cpu(
    const Tensor& anchor_boxes,
    const std::vector<Tensor>& boxes,
    double foreground_iou,
    double background_iou,
    bool low_quality) {
  check_arguments(anchor_boxes, boxes);
  const MatchingKernels use = kernels();
  const Thresholds thresholds{static_cast<float>(foreground_iou), static_cast<float>(background_iou)};
  Tensor result = empty_matches(anchor_boxes, boxes);
  int32_t* matches = static_cast<int32_t*>(result.data_ptr());
  const int64_t count = anchor_boxes.size(0);
  std::vector<AnchorBlock> blocks((count + ANCHORS_PER_BLOCK - 1) / ANCHORS_PER_BLOCK);
  const int64_t block_count = static_cast<int64_t>(blocks.size());
  const Anchors anchors{count, box_data(anchor_boxes), block_count, blocks.data(), coprime_step(block_count)};
  std::vector<Image> images(boxes.begin(), boxes.end());
  // Where there are no boxes at all nobody asks for a block's extent.
  if (std::any_of(images.begin(), images.end(), [](const Image& image) { return image.count > 0; })) {
    torch::stable::parallel_for(0, block_count, BLOCKS_PER_TASK, [&](int64_t begin, int64_t end) {
      use.summarise(anchors, begin, end);
    });
  }
  for_each_range(images, block_count, [&](int64_t index, int64_t begin, int64_t end, MatchingScratch scratch) {
    Image& image = images[index];
    std::vector<float> best(image.count, 0.0f);
    use.match(
        anchors, image.boxes(), thresholds, begin, end, low_quality ? best.data() : nullptr, matches + index * count,
        scratch);
    if (low_quality) {
      image.raise_best(best);
    }
  });
  if (low_quality) {
    for_each_range(images, block_count, [&](int64_t index, int64_t begin, int64_t end, MatchingScratch scratch) {
      use.restore(
          anchors, images[index].boxes(), begin, end, images[index].best.data(), matches + index * count, scratch);
    });
  }
  return result;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detkit, CPU, library) {
  library.impl("match_anchors", TORCH_BOX(&match_anchors_cpu));
}

}  // namespace detkit
