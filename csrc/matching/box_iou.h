// The one routine that every sweep over anchors and boxes uses, and a bound of it for many anchors at once.
#pragma once

#include "../arithmetic.h"

namespace detkit {
inline namespace CPU_LEVEL {

// xyxy in pixels, as a row of a float tensor [..., 4] holds it; or a pack of such boxes.
template <typename T>
struct Boxes {
  T x1;
  T y1;
  T x2;
  T y2;
};

using Box = Boxes<float>;

template <typename T>
HOST_DEVICE inline T box_area(const Boxes<T>& box) {
  return (box.x2 - box.x1) * (box.y2 - box.y1);
}

// Intersection over union; 0 where boxes do not overlap or the quotient is no number. Two sweeps compare its results
// for equality, and torchvision's box_iou must give the same bits: the order of the operations matters, and a product
// and a sum must never be contracted into one (-ffp-contract=off, nvcc -fmad=false).
template <typename T>
HOST_DEVICE inline T box_iou(const Boxes<T>& anchor, T anchor_area, const Boxes<T>& box, T area) {
  const T width = lesser(anchor.x2, box.x2) - greater(anchor.x1, box.x1);
  const T height = lesser(anchor.y2, box.y2) - greater(anchor.y1, box.y1);
  const T intersection = width * height;
  const T iou = intersection / (area + anchor_area - intersection);
  return select((width > T(0)) & (height > T(0)) & (iou > T(0)), iou, T(0));
}

// What neighbouring anchors have in common.
struct AnchorBlock {
  Box extent;  // that holds them all
  float least_area;
  float most_area;
};

// Whether a box may have an IoU of at least `least_iou`, and above 0, with an anchor of the block. It may say yes where
// none has, never no where one has: the IoU is greatest for the anchor that, having the block's part of the box inside,
// has the least area beside.
template <typename T>
HOST_DEVICE inline auto may_reach(const AnchorBlock& block, const Boxes<T>& box, T area, T least_iou) {
  const T width = lesser(T(block.extent.x2), box.x2) - greater(T(block.extent.x1), box.x1);
  const T height = lesser(T(block.extent.y2), box.y2) - greater(T(block.extent.y1), box.y1);
  const T overlap = lesser(width * height, area);
  const T anchor_area = lesser(greater(overlap, T(block.least_area)), T(block.most_area));
  const T intersection = lesser(overlap, anchor_area);
  const T margin = T(1.0001f);  // many times the rounding errors on either side
  // An IoU below the normal numbers (1.2e-38) may have rounded by any factor, so that it rules nothing out; from 1e-29
  // on the difference is the IoU itself.
  const T bound = least_iou - T(1e-37f);
  // Summed in this order neither areas that overflow nor ones that vanish turn a yes into a no.
  const auto reaches = margin * intersection >= bound * (area + (anchor_area - intersection));
  return (width > T(0)) & (height > T(0)) & reaches;
}

}  // namespace CPU_LEVEL
}  // namespace detkit
