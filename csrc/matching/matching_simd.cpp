// The hot loops of anchor matching on a CPU, compiled once for each instruction set.
//
// Anchors are taken in blocks of neighbours. A box is compared with the anchors of a block only where the block's
// extent and areas leave it a chance to matter, so that the cost follows the anchors that boxes really fit.
#include <bit>
#include <cmath>
#include <cstring>

#include "../pack.h"
#include "matching_kernels.h"

namespace detkit {
inline namespace CPU_LEVEL {
namespace {

constexpr int64_t LANES = Pack::size;
constexpr int64_t PACKS = ANCHORS_PER_BLOCK / LANES;
static_assert(ANCHORS_PER_BLOCK % LANES == 0 && LARGEST_PACK % LANES == 0);

// The anchors of a block, a pack of them after another, and the best box of each.
struct Block {
  Boxes<Pack> anchors[PACKS];
  Pack areas[PACKS];
  Pack best[PACKS];
  Pack::Bits match[PACKS];
};

int64_t block_size(const Anchors& anchors, int64_t block) {
  const int64_t rest = anchors.count - block * ANCHORS_PER_BLOCK;
  return rest < ANCHORS_PER_BLOCK ? rest : ANCHORS_PER_BLOCK;
}

// Fills a block; lanes without an anchor touch nothing.
void read_block(const Anchors& anchors, int64_t index, Block& block) {
  const Box* boxes = anchors.boxes + index * ANCHORS_PER_BLOCK;
  const int64_t size = block_size(anchors, index);
  float x1[ANCHORS_PER_BLOCK], y1[ANCHORS_PER_BLOCK], x2[ANCHORS_PER_BLOCK], y2[ANCHORS_PER_BLOCK];
  for (int64_t a = 0; a < ANCHORS_PER_BLOCK; ++a) {
    const Box box = a < size ? boxes[a] : Box{INFINITY, INFINITY, -INFINITY, -INFINITY};
    x1[a] = box.x1;
    y1[a] = box.y1;
    x2[a] = box.x2;
    y2[a] = box.y2;
  }
  for (int64_t p = 0; p < PACKS; ++p) {
    const int64_t a = p * LANES;
    block.anchors[p] = {load_lanes(x1 + a), load_lanes(y1 + a), load_lanes(x2 + a), load_lanes(y2 + a)};
    block.areas[p] = box_area(block.anchors[p]);
  }
}

// Lists the boxes that may reach their least IoU in a block, in order.
int64_t list_candidates(
    const AnchorBlock& block, const ImageBoxes& image, const float* least_iou, int32_t* candidates) {
  int64_t count = 0;
  for (int64_t g = 0; g < image.count; g += LANES) {
    const Boxes<Pack> boxes{
        load_lanes(image.x1 + g), load_lanes(image.y1 + g), load_lanes(image.x2 + g), load_lanes(image.y2 + g)};
    const Pack::Bits reached =
        may_reach(block, boxes, load_lanes(image.area + g), load_lanes(least_iou + g));
    for (uint32_t left = mask_bits(reached); left != 0; left &= left - 1) {
      candidates[count++] = static_cast<int32_t>(g + std::countr_zero(left));
    }
  }
  return count;
}

Boxes<Pack> spread(const ImageBoxes& image, int64_t g) {
  return {Pack(image.x1[g]), Pack(image.y1[g]), Pack(image.x2[g]), Pack(image.y2[g])};
}

// Finds the best of the listed boxes for each anchor, the first of equal ones. Raises best_of_boxes.
void match_block(
    Block& block, const ImageBoxes& image, const int32_t* candidates, int64_t count, float* best_of_boxes) {
  for (int64_t p = 0; p < PACKS; ++p) {
    block.best[p] = Pack(0.0f);
    block.match[p] = Pack::Bits{} + BACKGROUND;
  }
  for (int64_t c = 0; c < count; ++c) {
    const int32_t g = candidates[c];
    const Boxes<Pack> box = spread(image, g);
    Pack best_of_box = Pack(0.0f);
    for (int64_t p = 0; p < PACKS; ++p) {
      const Pack iou = box_iou(block.anchors[p], block.areas[p], box, Pack(image.area[g]));
      const Pack::Bits better = iou > block.best[p];
      block.best[p] = greater(iou, block.best[p]);
      block.match[p] = better ? Pack::Bits{} + g : block.match[p];
      best_of_box = greater(iou, best_of_box);
    }
    if (best_of_boxes) {
      best_of_boxes[g] = greater(greatest_lane(best_of_box), best_of_boxes[g]);
    }
  }
}

void write_matches(const Block& block, int64_t size, Thresholds thresholds, int32_t* matches) {
  alignas(64) int32_t decided[ANCHORS_PER_BLOCK];
  for (int64_t p = 0; p < PACKS; ++p) {
    const Pack::Bits unmatched =
        block.best[p] < Pack(thresholds.background) ? Pack::Bits{} + BACKGROUND : Pack::Bits{} + IGNORE;
    const Pack::Bits decision = block.best[p] < Pack(thresholds.foreground) ? unmatched : block.match[p];
    std::memcpy(decided + p * LANES, &decision, sizeof(decision));
  }
  std::memcpy(matches, decided, sizeof(int32_t) * static_cast<size_t>(size));
}

void summarise(const Anchors& anchors, int64_t begin, int64_t end) {
  for (int64_t index = begin; index < end; ++index) {
    AnchorBlock block{{INFINITY, INFINITY, -INFINITY, -INFINITY}, INFINITY, -INFINITY};
    const Box* boxes = anchors.boxes + index * ANCHORS_PER_BLOCK;
    for (int64_t a = 0; a < block_size(anchors, index); ++a) {
      const float area = box_area(boxes[a]);
      block.extent.x1 = lesser(boxes[a].x1, block.extent.x1);
      block.extent.y1 = lesser(boxes[a].y1, block.extent.y1);
      block.extent.x2 = greater(boxes[a].x2, block.extent.x2);
      block.extent.y2 = greater(boxes[a].y2, block.extent.y2);
      block.least_area = lesser(area, block.least_area);
      block.most_area = greater(area, block.most_area);
    }
    anchors.blocks[index] = block;
  }
}

void match(
    const Anchors& anchors, const ImageBoxes& image, Thresholds thresholds, int64_t begin, int64_t end,
    float* best_of_boxes, int32_t* matches, MatchingScratch scratch) {
  for (int64_t g = 0; g < image.count; ++g) {
    scratch.least_iou[g] = best_of_boxes ? 0.0f : thresholds.background;
  }
  Block block;
  match_block(block, image, nullptr, 0, nullptr);
  int32_t untouched[ANCHORS_PER_BLOCK];  // what a block is that no box can reach
  write_matches(block, ANCHORS_PER_BLOCK, thresholds, untouched);
  // Blocks are taken by leaps, so that every task soon meets anchors of all sizes and places and learns of each box what
  // IoU it can reach: that rules out most of the others. Without boxes there is nothing to learn, and memory is fastest
  // in order.
  const int64_t step = image.count > 0 ? anchors.step : 1;
  int64_t index = begin * step % anchors.block_count;
  for (int64_t turn = begin; turn < end; ++turn, index = (index + step) % anchors.block_count) {
    const int64_t size = block_size(anchors, index);
    int32_t* result = matches + index * ANCHORS_PER_BLOCK;
    const int64_t count = list_candidates(anchors.blocks[index], image, scratch.least_iou, scratch.candidates);
    if (count == 0) {
      std::memcpy(result, untouched, sizeof(int32_t) * static_cast<size_t>(size));
      continue;
    }
    read_block(anchors, index, block);
    match_block(block, image, scratch.candidates, count, best_of_boxes);
    write_matches(block, size, thresholds, result);
    for (int64_t c = 0; best_of_boxes && c < count; ++c) {
      const int32_t g = scratch.candidates[c];
      scratch.least_iou[g] = lesser(best_of_boxes[g], thresholds.background);
    }
  }
}

// Marks the anchors with which some listed box has its best IoU; false where there are none.
bool mark_best(
    const Block& block, const ImageBoxes& image, const int32_t* candidates, int64_t count, const float* best_of_boxes,
    Pack::Bits* marks) {
  Pack::Bits marked{};
  for (int64_t p = 0; p < PACKS; ++p) {
    marks[p] = Pack::Bits{};
  }
  for (int64_t c = 0; c < count; ++c) {
    const int32_t g = candidates[c];
    const Boxes<Pack> box = spread(image, g);
    for (int64_t p = 0; p < PACKS; ++p) {
      const Pack iou = box_iou(block.anchors[p], block.areas[p], box, Pack(image.area[g]));
      marks[p] |= iou.floats == Pack(best_of_boxes[g]).floats;
      marked |= marks[p];
    }
  }
  return any(marked);
}

void restore(
    const Anchors& anchors, const ImageBoxes& image, int64_t begin, int64_t end, const float* best_of_boxes,
    int32_t* matches, MatchingScratch scratch) {
  for (int64_t g = 0; g < image.count; ++g) {
    scratch.least_iou[g] = best_of_boxes[g] > 0.0f ? best_of_boxes[g] : INFINITY;
  }
  Block block;
  Pack::Bits marks[PACKS];
  for (int64_t index = begin; index < end; ++index) {
    const AnchorBlock& extent = anchors.blocks[index];
    const int64_t count = list_candidates(extent, image, scratch.least_iou, scratch.candidates);
    if (count == 0) {
      continue;
    }
    read_block(anchors, index, block);
    if (!mark_best(block, image, scratch.candidates, count, best_of_boxes, marks)) {
      continue;
    }
    // Their own best may be with any box, also with one too far below the background threshold to have been looked at.
    const int64_t touching = list_candidates(extent, image, scratch.zeros, scratch.candidates);
    match_block(block, image, scratch.candidates, touching, nullptr);
    for (int64_t a = 0; a < block_size(anchors, index); ++a) {
      int32_t& result = matches[index * ANCHORS_PER_BLOCK + a];
      result = marks[a / LANES][a % LANES] ? block.match[a / LANES][a % LANES] : result;
    }
  }
}

}  // namespace
}  // namespace CPU_LEVEL

template <>
MatchingKernels matching_kernels<CpuLevel::CPU_LEVEL>() {
  return {&summarise, &match, &restore};
}

}  // namespace detkit
