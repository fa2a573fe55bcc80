// The one routine that every sweep over anchors and boxes uses.
#pragma once

#include "../host_device.h"

namespace detkit {

// xyxy in pixels, as a row of a tensor [..., 4] holds it.
struct Box {
  float x1;
  float y1;
  float x2;
  float y2;
};

HOST_DEVICE inline float box_area(const Box& box) {
  return (box.x2 - box.x1) * (box.y2 - box.y1);
}

// Intersection over union; 0 where boxes do not overlap or the quotient is no number. Two sweeps compare its
// results for equality, and torchvision's box_iou must give the same bits: the order of the operations
// matters, and a product and a sum must never be contracted into one (-ffp-contract=off, nvcc -fmad=false).
HOST_DEVICE inline float box_iou(const Box& anchor, float anchor_area, const Box& box, float area) {
  const float left = anchor.x1 > box.x1 ? anchor.x1 : box.x1;
  const float right = anchor.x2 < box.x2 ? anchor.x2 : box.x2;
  const float top = anchor.y1 > box.y1 ? anchor.y1 : box.y1;
  const float bottom = anchor.y2 < box.y2 ? anchor.y2 : box.y2;
  const float width = right - left;
  const float height = bottom - top;
  if (!(width > 0.0f && height > 0.0f)) {
    return 0.0f;
  }
  const float intersection = width * height;
  const float iou = intersection / (area + anchor_area - intersection);
  return iou > 0.0f ? iou : 0.0f;
}

}  // namespace detkit
