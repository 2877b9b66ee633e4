#include "cpu/inset.hpp"

#include <algorithm>
#include <bit>
#include <utility>

#include "cpu/operations.hpp"
#include "cpu/parallel.hpp"

#include "cpu/target_begin.hpp"

namespace gpgan::cpu {
inline namespace GPGAN_CPU_NAMESPACE {
namespace {

// The minimum over a pixel and its 4-neighbours inside the image.
template <typename T>
void erode(const T* mask, Size size, T* out, int threads) {
  parallel_for(size.height, size.width, threads, [&](std::int64_t begin, std::int64_t end) {
    const std::int64_t width = size.width;
    for (std::int64_t y = begin; y < end; ++y) {
      const T* row = mask + y * width;
      const T* above = mask + std::max<std::int64_t>(y - 1, 0) * width;
      const T* below = mask + std::min(y + 1, size.height - 1) * width;
      T* to = out + y * width;
      const auto at = [&](std::int64_t x, std::int64_t left, std::int64_t right) {
        return std::min(std::min(std::min(above[x], below[x]), row[x]), std::min(row[left], row[right]));
      };
      to[0] = at(0, 0, std::min<std::int64_t>(1, width - 1));
      for (std::int64_t x = 1; x + 1 < width; ++x) to[x] = at(x, x - 1, x + 1);
      if (width > 1) to[width - 1] = at(width - 1, width - 2, width - 1);
    }
  });
}

template <typename T>
void mark_inside(const T* mask, Size size, BitPlane& inside, int threads) {
  inside.resize(size.height, size.width);
  parallel_for(size.height, size.width, threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t y = begin; y < end; ++y) {
      const T* row = mask + y * size.width;
      for (std::int64_t i = 0; i < inside.stride(); ++i) {
        const std::int64_t count = std::min<std::int64_t>(64, size.width - 64 * i);
        std::uint8_t flags[64] = {};
        for (std::int64_t j = 0; j < count; ++j) flags[j] = row[64 * i + j] > 0 ? 1 : 0;
        inside.row(y)[i] = pack(flags);
      }
    }
  });
}

}  // namespace

void Inset::erode(BitPlane& mask, int pixels) {
  inside_ = mask;
  for (int i = 0; i < pixels; ++i) {
    erode4(inside_, next_);
    std::swap(inside_, next_);
    if (i > 0 && inside_ == next_) break;  // nothing left to take
  }
  if (pixels == 0) return;
  before_ = mask;
  find_vanished();
  mask = inside_;
}

void Inset::erode(std::vector<std::uint8_t>& mask, Size size, int pixels, int threads) {
  erode_values(mask, bytes_, size, pixels, threads);
}

void Inset::erode(std::vector<float>& mask, Size size, int pixels, int threads) {
  erode_values(mask, floats_, size, pixels, threads);
}

template <typename T>
void Inset::erode_values(std::vector<T>& mask, Values<T>& values, Size size, int pixels, int threads) {
  if (pixels == 0) return mark_inside(mask.data(), size, inside_, threads);
  values.eroded.resize(mask.size());
  cpu::erode(mask.data(), size, values.eroded.data(), threads);
  for (int i = 1; i < pixels; ++i) {
    values.next.resize(mask.size());
    cpu::erode(values.eroded.data(), size, values.next.data(), threads);
    const bool done = values.next == values.eroded;  // nothing left to take
    std::swap(values.eroded, values.next);
    if (done) break;
  }
  mark_inside(mask.data(), size, before_, threads);
  mark_inside(values.eroded.data(), size, inside_, threads);
  next_ = inside_;
  find_vanished();
  for (std::int64_t y = 0; y < size.height; ++y) {
    for (std::int64_t i = 0; i < inside_.stride(); ++i) {
      for (std::uint64_t kept = inside_.row(y)[i] & ~next_.row(y)[i]; kept != 0; kept &= kept - 1) {
        const auto at = static_cast<std::size_t>(y * size.width + 64 * i + std::countr_zero(kept));
        values.eroded[at] = mask[at];
      }
    }
  }
  std::swap(mask, values.eroded);
}

// A component keeps its old values if nothing of it is left: adds those to inside_. Whatever the erosion took from a
// component that survives hangs together with what is left of it through taken pixels: a flood over those alone finds
// it, and costs the perimeter instead of the area.
void Inset::find_vanished() {
  const std::int64_t height = before_.height();
  const std::int64_t width = before_.width();
  lost_.resize(height, width);
  const auto flood = [&](std::int64_t y, std::int64_t x) {
    if (!before_.test(y, x) || inside_.test(y, x) || lost_.test(y, x)) return;
    lost_.set(y, x);
    front_.push_back(y * width + x);
  };
  const auto for_neighbours = [&](std::int64_t y, std::int64_t x, auto&& visit) {
    if (y > 0) visit(y - 1, x);
    if (y + 1 < height) visit(y + 1, x);
    if (x > 0) visit(y, x - 1);
    if (x + 1 < width) visit(y, x + 1);
  };
  front_.clear();
  for (std::int64_t y = 0; y < height; ++y) {
    for (std::int64_t i = 0; i < before_.stride(); ++i) {
      for (std::uint64_t taken = before_.row(y)[i] & ~inside_.row(y)[i]; taken != 0; taken &= taken - 1) {
        const std::int64_t x = 64 * i + std::countr_zero(taken);
        bool survivor = false;
        for_neighbours(y, x, [&](std::int64_t ny, std::int64_t nx) { survivor |= inside_.test(ny, nx); });
        if (survivor) flood(y, x);
      }
    }
  }
  while (!front_.empty()) {
    const std::int64_t i = front_.back();
    front_.pop_back();
    for_neighbours(i / width, i % width, flood);
  }
  for (std::int64_t y = 0; y < height; ++y) {
    for (std::int64_t i = 0; i < before_.stride(); ++i) inside_.row(y)[i] = before_.row(y)[i] & ~lost_.row(y)[i];
  }
}

void inset(const Planes& mask, int pixels, int threads) {
  std::vector<float> values(mask.data, mask.data + mask.floats());
  Inset().erode(values, mask.size, pixels, threads);
  std::copy(values.begin(), values.end(), mask.data);
}

}  // namespace GPGAN_CPU_NAMESPACE
}  // namespace gpgan::cpu

#include "cpu/target_end.hpp"
