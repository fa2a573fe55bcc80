// What the kernels are made of, one formula at a time, for test_formulas.py to call through ctypes. Compiled without
// torch, with the options of csrc's own sources, for one instruction set at a time.
//
// T is what a formula computes with: double, float, GpuFloat, whose approximate instructions are exact ones here, or
// Pack, which takes as many floats as it holds; the arrays then hold a whole number of the largest packs.
#include <cstdint>
#include <type_traits>

#include "focal_loss/focal_loss.h"
#include "gpu_float.h"
#include "matching/box_iou.h"
#include "pack.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

using namespace detkit;

namespace {

template <typename T>
constexpr int64_t step = std::is_same_v<T, Pack> ? Pack::size : 1;

template <typename T, typename Stored>
T load(const Stored* values) {
  if constexpr (std::is_same_v<T, Pack>) {
    return load_lanes(values);
  } else {
    return *values;
  }
}

template <typename T, typename Stored>
void store(T value, Stored* values) {
  if constexpr (std::is_same_v<T, Pack>) {
    store_lanes(value, values);
  } else if constexpr (std::is_same_v<T, GpuFloat>) {
    *values = value.value;
  } else {
    *values = value;
  }
}

template <typename T, typename Stored, typename Formula>
void map(const Stored* values, Stored* results, int64_t count, const Formula& formula) {
  for (int64_t i = 0; i < count; i += step<T>) {
    store(formula(load<T>(values + i)), results + i);
  }
}

// The boxes from the i-th on of the columns x1, y1, x2 and y2, each of `count` numbers.
template <typename T>
Boxes<T> load_boxes(const float* columns, int64_t count, int64_t i) {
  return {
      load<T>(columns + i), load<T>(columns + count + i), load<T>(columns + 2 * count + i),
      load<T>(columns + 3 * count + i)};
}

// The IoU of each anchor with the box of the same place.
template <typename T>
void pairwise_iou(const float* anchors, const float* boxes, float* iou, int64_t count) {
  for (int64_t i = 0; i < count; i += step<T>) {
    const Boxes<T> anchor = load_boxes<T>(anchors, count, i);
    const Boxes<T> box = load_boxes<T>(boxes, count, i);
    store(box_iou(anchor, box_area(anchor), box, box_area(box)), iou + i);
  }
}

// Whether each box may reach the IoU of the same place with some anchor of the block: 1 or 0.
template <typename T>
void reached(const AnchorBlock& block, const float* boxes, const float* least_iou, float* results, int64_t count) {
  for (int64_t i = 0; i < count; i += step<T>) {
    const Boxes<T> box = load_boxes<T>(boxes, count, i);
    store(select(may_reach(block, box, box_area(box), load<T>(least_iou + i)), T(1.0f), T(0.0f)), results + i);
  }
}

template <typename Narrow>
void widen_all(const Narrow* values, float* scalars, float* lanes, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    scalars[i] = widen(values[i]);
  }
  for (int64_t i = 0; i < count; i += Pack::size) {
    store_lanes(load_lanes(values + i), lanes + i);
  }
}

template <typename Narrow>
void narrow_all(const float* values, Narrow* scalars, Narrow* lanes, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    narrow(values[i], scalars[i]);
  }
  for (int64_t i = 0; i < count; i += Pack::size) {
    store_lanes(load_lanes(values + i), lanes + i);
  }
}

// What FocalLoss does not have for every gamma and T is NaN here.
template <typename T, typename Focal>
T easy_loss(const Focal& focal, T logit) {
  if constexpr (Focal::has_easy_form) {
    return focal.easy_loss(logit);
  } else {
    return T(NAN);
  }
}

template <typename T, typename Focal>
T easy_slope(const Focal& focal, T logit) {
  if constexpr (Focal::has_easy_form) {
    return focal.easy_slope(logit);
  } else {
    return T(NAN);
  }
}

template <typename T, typename Focal>
T coarse_slope(const Focal& focal, T logit) {
  if constexpr (Focal::has_easy_form) {
    return focal.coarse_slope(logit);
  } else {
    return T(NAN);
  }
}

}  // namespace

// results[i] = formula, where x is values[i] and focal the focal loss with this gamma.
#define EXPORT_FOR(T, Stored, name, formula)                                             \
  EXPORT void name(double gamma, const Stored* values, Stored* results, int64_t count) { \
    with_focal_loss<T>(gamma, [&]([[maybe_unused]] const auto& focal) {                  \
      map<T>(values, results, count, [&](T x) { return formula; });                      \
    });                                                                                  \
  }
#define EXPORT_FORMULA(name, formula)                \
  EXPORT_FOR(double, double, name##_double, formula) \
  EXPORT_FOR(float, float, name##_float, formula)    \
  EXPORT_FOR(GpuFloat, float, name##_gpu, formula)   \
  EXPORT_FOR(Pack, float, name##_pack, formula)

EXPORT_FORMULA(exp_nonpositive, exp_nonpositive(x))
EXPORT_FORMULA(log1p_unit, log1p_unit(x))
EXPORT_FORMULA(negative_loss, focal.negative_loss(x))
EXPORT_FORMULA(negative_slope, focal.negative_slope(x))
EXPORT_FORMULA(positive_loss, focal.positive_loss(x))
EXPORT_FORMULA(positive_slope, focal.positive_slope(x))
EXPORT_FORMULA(easy_loss, easy_loss(focal, x))
EXPORT_FORMULA(easy_slope, easy_slope(focal, x))
EXPORT_FOR(Pack, float, coarse_slope_pack, coarse_slope(focal, x))

EXPORT void widen_bfloat16(const BFloat16* values, float* scalars, float* lanes, int64_t count) {
  widen_all(values, scalars, lanes, count);
}

EXPORT void widen_float16(const Half* values, float* scalars, float* lanes, int64_t count) {
  widen_all(values, scalars, lanes, count);
}

EXPORT void narrow_bfloat16(const float* values, BFloat16* scalars, BFloat16* lanes, int64_t count) {
  narrow_all(values, scalars, lanes, count);
}

EXPORT void narrow_float16(const float* values, Half* scalars, Half* lanes, int64_t count) {
  narrow_all(values, scalars, lanes, count);
}

EXPORT void pairwise_iou_float(const float* anchors, const float* boxes, float* iou, int64_t count) {
  pairwise_iou<float>(anchors, boxes, iou, count);
}

EXPORT void pairwise_iou_pack(const float* anchors, const float* boxes, float* iou, int64_t count) {
  pairwise_iou<Pack>(anchors, boxes, iou, count);
}

// block: the extent's x1, y1, x2 and y2, and the least and the most area.
EXPORT void may_reach_float(
    const float* block, const float* boxes, const float* least_iou, float* results, int64_t count) {
  reached<float>({{block[0], block[1], block[2], block[3]}, block[4], block[5]}, boxes, least_iou, results, count);
}

EXPORT void may_reach_pack(
    const float* block, const float* boxes, const float* least_iou, float* results, int64_t count) {
  reached<Pack>({{block[0], block[1], block[2], block[3]}, block[4], block[5]}, boxes, least_iou, results, count);
}
