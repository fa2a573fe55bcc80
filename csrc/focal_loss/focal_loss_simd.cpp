// The hot loops of the focal loss on a CPU, compiled once for each instruction set. Anchors that do not count cost next
// to nothing.
#include "focal_loss_columns.h"
#include "focal_loss_rows.h"

namespace detkit {
inline namespace CPU_LEVEL {
namespace {

// Calls function(number of the logits' type, formula for its arithmetic).
template <typename Function>
void with_types(const FocalLossLevel& level, const Function& function) {
  with_element_type(level.type, [&](auto scalar) {
    using Numbers = typename Lanes<arithmetic_t<decltype(scalar)>>::type;
    with_focal_loss<Numbers>(level.gamma, [&](const auto& focal) { function(scalar, focal); });
  });
}

template <typename Scalar>
bool in_rows(const FocalLossLevel& level) {
  return level.logits.class_stride == 1 && level.classes >= Lanes<arithmetic_t<Scalar>>::count;
}

bool range_loss(const FocalLossLevel& level, AnchorRange range, const PerAnchor& loss) {
  bool known = true;
  with_types(level, [&]<typename Scalar>(Scalar, const auto& focal) {
    known = in_rows<Scalar>(level) ? row_losses<Scalar>(level, range, loss, focal)
                                   : column_losses<Scalar>(level, range, loss, focal);
  });
  return known;
}

void range_gradient(
    const FocalLossLevel& level, AnchorRange range, const PerAnchor& grad, const PerClass& gradient) {
  with_types(level, [&]<typename Scalar>(Scalar, const auto& focal) {
    if (in_rows<Scalar>(level) && gradient.class_stride == 1) {
      row_gradients<Scalar>(level, range, grad, gradient, focal);
    } else {
      column_gradients<Scalar>(level, range, grad, gradient, focal);
    }
  });
}

}  // namespace
}  // namespace CPU_LEVEL

template <>
FocalLossKernels focal_loss_kernels<CpuLevel::CPU_LEVEL>() {
  return {&range_loss, &range_gradient};
}

}  // namespace detkit
