// Erosion of the mask, so that the seam lies inside the object.
#include <vector>

#include "cpu/operations.hpp"
#include "cpu/parallel.hpp"

namespace gpgan::cpu {
namespace {

// The minimum over a pixel and its 4-neighbours inside the image.
void erode(const Planes& mask, const Planes& out, int threads) {
  const std::int64_t height = mask.size.height;
  const std::int64_t width = mask.size.width;
  parallel_for(height, width, threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t y = begin; y < end; ++y) {
      const float* row = mask.row(y);
      const float* above = mask.row(std::max<std::int64_t>(y - 1, 0));
      const float* below = mask.row(std::min(y + 1, height - 1));
      float* to = out.row(y);
      for (std::int64_t x = 0; x < width; ++x) to[x] = std::min({above[x], row[x], below[x]});
      for (std::int64_t x = 1; x < width; ++x) to[x] = std::min(to[x], row[x - 1]);
      for (std::int64_t x = 0; x + 1 < width; ++x) to[x] = std::min(to[x], row[x + 1]);
    }
  });
}

}  // namespace

void inset(const Planes& mask, int pixels, int threads) {
  if (pixels == 0) return;
  const std::int64_t height = mask.size.height;
  const std::int64_t width = mask.size.width;
  std::vector<float> memory(static_cast<std::size_t>(2 * mask.floats()));
  Planes eroded{memory.data(), 1, mask.size};
  Planes next{memory.data() + mask.floats(), 1, mask.size};
  erode(mask, eroded, threads);
  for (int i = 1; i < pixels; ++i) {
    erode(eroded, next, threads);
    if (std::equal(next.data, next.data + next.floats(), eroded.data)) break;  // nothing left to take
    std::swap(eroded, next);
  }

  // A component keeps its old values if nothing of it is left. Whatever the erosion took from a component
  // that survives hangs together with what is left of it through taken pixels: a flood over those alone finds
  // it, and costs the perimeter instead of the area.
  const auto taken = [&](std::int64_t i) { return mask.data[i] > 0 && !(eroded.data[i] > 0); };
  std::vector<std::int64_t> front;
  std::vector<bool> lost(static_cast<std::size_t>(mask.floats()));  // taken, and its component survives
  const auto for_neighbours = [&](std::int64_t i, auto&& visit) {
    const std::int64_t x = i % width;
    if (i >= width) visit(i - width);
    if (i + width < height * width) visit(i + width);
    if (x > 0) visit(i - 1);
    if (x + 1 < width) visit(i + 1);
  };
  const auto flood = [&](std::int64_t i) {
    if (!taken(i) || lost[static_cast<std::size_t>(i)]) return;
    lost[static_cast<std::size_t>(i)] = true;
    front.push_back(i);
  };
  for (std::int64_t i = 0; i < mask.floats(); ++i) {
    if (!taken(i)) continue;
    bool survivor = false;
    for_neighbours(i, [&](std::int64_t n) { survivor |= eroded.data[n] > 0; });
    if (survivor) flood(i);
  }
  while (!front.empty()) {
    const std::int64_t i = front.back();
    front.pop_back();
    for_neighbours(i, flood);
  }
  for (std::int64_t i = 0; i < mask.floats(); ++i) {
    if (taken(i) && !lost[static_cast<std::size_t>(i)]) continue;
    mask.data[i] = eroded.data[i];
  }
}

}  // namespace gpgan::cpu
