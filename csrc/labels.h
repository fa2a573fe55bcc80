// The two labels that are not a class. detkit/labels.py defines the same two numbers, and a test holds them
// equal.
#pragma once

#include <cstdint>

namespace detkit {

constexpr int32_t BACKGROUND = -1;
constexpr int32_t IGNORE = -2;

}  // namespace detkit
