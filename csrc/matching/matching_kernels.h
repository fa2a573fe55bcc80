// The hot loops of anchor matching on a CPU, of which there is one set for each instruction set.
#pragma once

#include <cstdint>
#include <vector>

#include "../cpu_level.h"
#include "../labels.h"
#include "box_iou.h"

namespace detkit {

constexpr int64_t ANCHORS_PER_BLOCK = 64;
constexpr int64_t LARGEST_PACK = 16;  // of all instruction sets

struct Thresholds {
  float foreground;
  float background;
};

// The boxes of one image, one array for each coordinate, followed by boxes that touch nothing up to a multiple of
// LARGEST_PACK.
struct ImageBoxes {
  int64_t count;
  const float* x1;
  const float* y1;
  const float* x2;
  const float* y2;
  const float* area;
};

// The anchors, which all images share. Blocks are ANCHORS_PER_BLOCK consecutive ones.
struct Anchors {
  int64_t count;
  const Box* boxes;
  int64_t block_count;
  AnchorBlock* blocks;
  int64_t step;  // no common divisor with block_count; see match() in matching_simd.cpp
};

// Memory of one task, as many of each as there are boxes with those that follow them.
struct MatchingScratch {
  float* least_iou;     // what a block must be able to reach for the box to be looked at; infinity at first
  float* zeros;
  int32_t* candidates;  // the boxes to look at
};

// Every kernel takes the blocks from begin to end.
struct MatchingKernels {
  void (*summarise)(const Anchors&, int64_t begin, int64_t end);
  // Matches the anchors as if there were no low-quality matches. Raises best_of_boxes, unless it is null, to each box's
  // best IoU with these anchors.
  void (*match)(
      const Anchors&, const ImageBoxes&, Thresholds, int64_t begin, int64_t end, float* best_of_boxes, int32_t* matches,
      MatchingScratch);
  // Gives every anchor with which some box has its best IoU back to the box with which it has its own.
  void (*restore)(
      const Anchors&, const ImageBoxes&, int64_t begin, int64_t end, const float* best_of_boxes, int32_t* matches,
      MatchingScratch);
};

template <CpuLevel level>
MatchingKernels matching_kernels();

}  // namespace detkit
