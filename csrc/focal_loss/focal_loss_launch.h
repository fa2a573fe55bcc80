// How the focal loss is shared out on a GPU: which threads take which logits of which level, in how many launches.
#pragma once

#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <cstdlib>
#include <vector>

#include "../cuda_launch.h"
#include "focal_loss_level.h"

namespace detkit {

constexpr int TASKS_PER_LAUNCH = 8;           // more than pyramids have levels, within a kernel's 4 KB of arguments
constexpr int64_t IMAGES_PER_LAUNCH = 65535;  // the most blocks that CUDA has in a grid's second dimension
// Of a level, so that its threads, up to a warp for each anchor, can be counted in 32 bits; also the most classes.
constexpr int64_t MOST_ANCHORS = 1 << 25;

// One level, and how threads share it out.
struct Task {
  FocalLossLevel level;
  PerAnchor loss;          // to write, or the incoming gradient
  PerClass gradient = {};  // to write, unless it is the loss that is asked for
  int32_t first_block = 0;
  int32_t vectors = 0;     // of an anchor's logits, each of which is moved at once
  int32_t lane_bits = 0;   // 2^lane_bits neighbouring threads share an anchor
};

// The levels that one launch takes.
struct Launch {
  int32_t numbers_at_once = 0;  // how many logits are moved at once
  int32_t images = 0;
  int32_t blocks = 0;  // of threads, for each image
  int32_t count = 0;
  Task tasks[TASKS_PER_LAUNCH] = {};

  HOST_DEVICE const Task& task_of(int32_t block) const {
    int index = 0;
    while (index + 1 < count && block >= tasks[index + 1].first_block) {
      ++index;
    }
    return tasks[index];
  }
};

// How many of a level's logits, and of the gradients written to them, can be moved at once: 16 bytes, 4 bytes, or one.
inline int64_t numbers_at_once(const FocalLossLevel& level, const PerClass& gradient, int64_t size) {
  const auto fits = [&](const PerClass& values, int64_t count) {
    return values.class_stride == 1 && level.classes % count == 0 && values.anchor_stride % count == 0 &&
        values.image_stride % count == 0 && reinterpret_cast<uintptr_t>(values.data) % (count * size) == 0;
  };
  for (const int64_t count : {16 / size, 4 / size}) {
    if (count > 1 && fits(level.logits, count) && (gradient.data == nullptr || fits(gradient, count))) {
      return count;
    }
  }
  return 1;
}

// As many threads to an anchor as have nearly the same number of vectors each, at most an eighth of their turns being
// idle: neighbours then read side by side. Where the anchors lie closer together than the classes, one. As a power of
// two.
inline int32_t lane_bits(const FocalLossLevel& level, int64_t vectors) {
  int32_t bits = 0;
  if (std::abs(level.logits.anchor_stride) < std::abs(level.logits.class_stride)) {
    return bits;
  }
  for (int32_t more = 1; 1 << more <= THREADS_PER_WARP; ++more) {
    const int64_t places = parts(vectors, 1 << more) << more;
    bits = 7 * places <= 8 * vectors ? more : bits;
  }
  return bits;
}

// How many images of a level can be addressed in 32 bits.
inline int64_t images_at_once(const Task& task) {
  const FocalLossLevel& level = task.level;
  int64_t images = IMAGES_PER_LAUNCH;
  const auto limit = [&](const auto& values) {
    const int64_t left = INT32_MAX - std::abs(values.anchor_stride) * level.anchors;
    images = left < 0 ? 0 : std::min(images, 1 + left / std::max<int64_t>(1, std::abs(values.image_stride)));
  };
  limit(level.logits);
  limit(level.labels);
  limit(level.weights);
  limit(task.loss);
  limit(task.gradient);
  STD_TORCH_CHECK(
      images > 0 && level.anchors <= MOST_ANCHORS && level.classes <= MOST_ANCHORS,
      "sigmoid_focal_loss: a level of ", level.anchors, " anchors and ", level.classes,
      " classes is too large for a GPU, where a level can have ", MOST_ANCHORS,
      " anchors, and one image's part of each tensor must span less than 2^31 elements; give it as several levels");
  return images;
}

// The task of the images from `first` on.
inline Task from_image(Task task, int64_t first, int64_t element_size) {
  const int64_t size = task.level.type == ElementType::float64 ? sizeof(double) : sizeof(float);
  const auto advance = [&](auto& values, int64_t bytes) {
    if (values.data != nullptr) {
      values.data = static_cast<char*>(values.data) + first * values.image_stride * bytes;
    }
  };
  advance(task.level.logits, element_size);
  advance(task.level.labels, sizeof(int32_t));
  advance(task.level.weights, size);
  advance(task.loss, size);
  advance(task.gradient, element_size);
  return task;
}

// Adds a task to the launch.
inline void append(Launch& launch, Task task) {
  task.vectors = static_cast<int32_t>(task.level.classes / launch.numbers_at_once);
  task.lane_bits = lane_bits(task.level, task.vectors);
  task.first_block = launch.blocks;
  launch.blocks += static_cast<int32_t>(parts(task.level.anchors << task.lane_bits, THREADS_PER_BLOCK));
  launch.tasks[launch.count++] = task;
}

// The launch, in parts of as many images as its tasks can take at once.
inline void append_parts(const Launch& launch, int64_t element_size, std::vector<Launch>& launches) {
  const int64_t images = launch.tasks[0].level.images;
  int64_t at_once = images;
  for (int32_t index = 0; index < launch.count; ++index) {
    at_once = std::min(at_once, images_at_once(launch.tasks[index]));
  }
  for (int64_t first = 0; first < images; first += at_once) {
    Launch part = launch;
    part.images = static_cast<int32_t>(std::min(at_once, images - first));
    for (int32_t index = 0; index < part.count; ++index) {
      part.tasks[index] = from_image(part.tasks[index], first, element_size);
    }
    launches.push_back(part);
  }
}

// The launches for all tasks, each with as many as fit into it and are read in the same way.
inline std::vector<Launch> plan_launches(const std::vector<Task>& tasks, int64_t element_size) {
  std::vector<Launch> launches;
  Launch launch;
  for (const Task& task : tasks) {
    if (task.level.images * task.level.anchors == 0) {
      continue;
    }
    const auto numbers = static_cast<int32_t>(numbers_at_once(task.level, task.gradient, element_size));
    if (launch.count == TASKS_PER_LAUNCH || (launch.count > 0 && numbers != launch.numbers_at_once)) {
      append_parts(launch, element_size, launches);
      launch = {};
    }
    launch.numbers_at_once = numbers;
    append(launch, task);
  }
  if (launch.count > 0) {
    append_parts(launch, element_size, launches);
  }
  return launches;
}

}  // namespace detkit
