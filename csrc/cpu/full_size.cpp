#include "cpu/full_size.hpp"

#include <algorithm>
#include <bit>
#include <functional>
#include <utility>

#include "cpu/operations.hpp"
#include "cpu/parallel.hpp"
#include "cpu/pixels.hpp"
#include "cpu/vectorize.hpp"

#include "cpu/target_begin.hpp"

namespace gpgan::cpu {
inline namespace GPGAN_CPU_NAMESPACE {
namespace {

ConstImageView channels_of(ConstImageView view, std::int64_t first, std::int64_t count) {
  view.data = static_cast<const std::byte*>(view.data) + first * view.strides[2];
  view.channels = count;
  return view;
}

// The bytes between a view's first and last, whatever the signs of its strides.
std::pair<const std::byte*, const std::byte*> extent(const ConstImageView& view) {
  const auto* low = static_cast<const std::byte*>(view.data);
  const std::byte* high = low;
  const std::int64_t counts[] = {view.height, view.width, view.channels};
  for (std::size_t i = 0; i < 3; ++i) {
    const std::ptrdiff_t span = (counts[i] - 1) * view.strides[i];
    (span < 0 ? low : high) += span;
  }
  return {low, high + sizeof(double)};
}

bool overlap(const ConstImageView& a, const ConstImageView& b) {
  const auto [a_low, a_high] = extent(a);
  const auto [b_low, b_high] = extent(b);
  return std::less<>{}(a_low, b_high) && std::less<>{}(b_low, a_high);
}

std::int64_t size_of(DType dtype) {
  switch (dtype) {
    case DType::kUint8:
      return 1;
    case DType::kUint16:
      return 2;
    case DType::kFloat32:
      return 4;
    case DType::kFloat64:
      break;
  }
  return 8;
}

// The floats of eight bits.
struct EightFloats {
  float at[256][8];
  constexpr EightFloats() : at() {
    for (int byte = 0; byte < 256; ++byte) {
      for (int i = 0; i < 8; ++i) at[byte][i] = static_cast<float>(byte >> i & 1);
    }
  }
};
constexpr EightFloats kEightFloats;

}  // namespace

FullSize::FullSize(core::Size size, std::int64_t channels, int threads)
    : size_(size),
      channels_(channels),
      threads_(threads),
      membrane_(threads),
      scratch_(static_cast<std::size_t>(threads)) {}

bool FullSize::load(const core::Inputs& inputs) {
  has_membrane_ = false;
  target_ = inputs.target;
  source_ = channels_of(inputs.source, 0, channels_);
  offset_ = inputs.offset;
  check_range(target_, "target", threads_);
  check_range(source_, "source", threads_);
  load_mask(inputs);
  extend_source(inputs);
  switch (mask_kind_) {
    case MaskKind::kBits:
      inset_.erode(bit_mask_, inputs.inset);
      break;
    case MaskKind::kBytes:
      inset_.erode(byte_mask_, size_, inputs.inset, threads_);
      break;
    case MaskKind::kFloats:
      inset_.erode(float_mask_, size_, inputs.inset, threads_);
  }

  support_ = {size_.height, size_.width, 0, 0};
  const BitPlane& bits = inside();
  for (std::int64_t y = 0; y < size_.height; ++y) {
    const std::uint64_t* row = bits.row(y);
    const std::uint64_t* end = row + bits.stride();
    const auto set = [](std::uint64_t word) { return word != 0; };
    const std::uint64_t* first = std::find_if(row, end, set);
    if (first == end) continue;
    const std::uint64_t* last = end - 1;
    while (*last == 0) --last;
    support_.top = std::min(support_.top, y);
    support_.bottom = y + 1;
    support_.left = std::min<std::int64_t>(support_.left, 64 * (first - row) + std::countr_zero(*first));
    support_.right = std::max<std::int64_t>(support_.right, 64 * (last - row) + 64 - std::countl_zero(*last));
  }
  return !support_.empty();
}

// In bits where it is 0 and 1 alone, in bytes where it is bytes and nothing multiplies it.
void FullSize::load_mask(const core::Inputs& inputs) {
  // A source's alpha is the mask where none is given, and else multiplies it.
  const bool is_alpha = inputs.mask.empty();
  const bool multiplied = inputs.has_alpha && !is_alpha;
  const ConstImageView mask = is_alpha ? channels_of(inputs.source, channels_, 1) : inputs.mask;
  const char* name = is_alpha ? "source" : "mask";
  check_range(mask, name, threads_);

  if (!multiplied && load_bits(mask, !is_alpha, offset_, size_, bit_mask_, threads_)) {
    mask_kind_ = MaskKind::kBits;
    return;
  }
  const auto pixels = static_cast<std::size_t>(size_.pixels());
  if (!multiplied && mask.dtype == DType::kUint8) {
    mask_kind_ = MaskKind::kBytes;
    byte_mask_.resize(pixels);
    load_bytes(mask, offset_, byte_mask_.data(), size_, threads_);
    return;
  }
  mask_kind_ = MaskKind::kFloats;
  float_mask_.resize(pixels);
  const Planes out{float_mask_.data(), 1, size_};
  if (is_alpha) return cpu::load(mask, name, offset_, out, threads_);
  cpu::load_mask(mask, name, offset_, out, threads_);
  if (!multiplied) return;
  alpha_.resize(pixels);
  cpu::load(channels_of(inputs.source, channels_, 1), "source", offset_, {alpha_.data(), 1, size_}, threads_);
  parallel_for(size_.pixels(), 1, threads_, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) out.data[i] *= alpha_[static_cast<std::size_t>(i)];
  });
}

void FullSize::extend_source(const core::Inputs& inputs) {
  const std::int64_t bottom = offset_.top + source_.height;
  const std::int64_t right = offset_.left + source_.width;
  const bool covers = offset_.top <= 0 && offset_.left <= 0 && bottom >= size_.height && right >= size_.width;
  has_extended_ = inputs.has_alpha || !covers;
  if (!has_extended_) return;
  extended_.resize(static_cast<std::size_t>(channels_ * size_.pixels()));
  alpha_.resize(static_cast<std::size_t>(size_.pixels()));
  const Planes source{extended_.data(), channels_, size_};
  const Planes alpha{alpha_.data(), 1, size_};
  cpu::load(source_, "source", offset_, source, threads_);
  if (inputs.has_alpha) {
    cpu::load(channels_of(inputs.source, channels_, 1), "source", offset_, alpha, threads_);
  } else {
    parallel_for(size_.height, size_.width, threads_, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t y = begin; y < end; ++y) {
        const bool row = y >= offset_.top && y < bottom;
        for (std::int64_t x = 0; x < size_.width; ++x) {
          alpha.row(y)[x] = row && x >= offset_.left && x < right ? 1.0F : 0.0F;
        }
      }
    });
  }
  extend(source, alpha, threads_);
}

void FullSize::read_target(std::int64_t y, std::int64_t x, std::int64_t count, const Rows& out) const {
  read_row(target_, y, x, count, out.data, out.stride);
}

void FullSize::read_source(std::int64_t y, std::int64_t x, std::int64_t count, const Rows& out) const {
  if (!has_extended_) return read_row(source_, y - offset_.top, x - offset_.left, count, out.data, out.stride);
  for (std::int64_t c = 0; c < channels_; ++c) {
    std::copy_n(extended_.data() + (c * size_.height + y) * size_.width + x, count, out.channel(c));
  }
}

void FullSize::read_mask(std::int64_t y, std::int64_t x, std::int64_t count, float* out) const {
  if (mask_kind_ == MaskKind::kFloats) {
    std::copy_n(float_mask_.data() + y * size_.width + x, count, out);
    return;
  }
  if (mask_kind_ == MaskKind::kBytes) {
    const std::uint8_t* row = byte_mask_.data() + y * size_.width + x;
    for (std::int64_t i = 0; i < count; ++i) out[i] = static_cast<float>(row[i]) * (1.0F / 255.0F);
    return;
  }
  const std::uint64_t* row = bit_mask_.row(y);
  for (std::int64_t i = 0; i < count; i += 8) {
    const std::int64_t word = (x + i) / 64;
    const std::int64_t shift = (x + i) % 64;
    std::uint64_t bits = row[word] >> shift;
    if (shift > 56 && word + 1 < bit_mask_.stride()) bits |= row[word + 1] << (64 - shift);
    std::copy_n(kEightFloats.at[bits & 0xFF], std::min<std::int64_t>(8, count - i), out + i);
  }
}

void FullSize::mark_varying(std::int64_t block, std::uint8_t* varies) const {
  const std::int64_t columns = (size_.width + block - 1) / block;
  const BitPlane& bits = inside();
  const auto constant = [&](const auto* mask, const Rectangle& where) {
    const auto first = mask[where.top * size_.width + where.left];
    bool same = true;
    for (std::int64_t y = where.top; y < where.bottom && same; ++y) {
      const auto* row = mask + y * size_.width;
      for (std::int64_t x = where.left; x < where.right; ++x) same &= row[x] == first;
    }
    return same;
  };
  // A pixel beyond the support has a neighbour in it.
  const std::int64_t first = std::max<std::int64_t>(support_.top - 1, 0) / block;
  const std::int64_t last = std::min(support_.bottom, size_.height - 1) / block;
  const std::int64_t first_column = std::max<std::int64_t>(support_.left - 1, 0) / block;
  const std::int64_t last_column = std::min(support_.right, size_.width - 1) / block;
  parallel_for(last + 1 - first, block * size_.width, threads_, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin + first; i < end + first; ++i) {
      for (std::int64_t j = first_column; j <= last_column; ++j) {
        const Rectangle where{std::max<std::int64_t>(i * block - 1, 0), std::max<std::int64_t>(j * block - 1, 0),
                              std::min((i + 1) * block + 1, size_.height), std::min((j + 1) * block + 1, size_.width)};
        const std::int64_t height = where.bottom - where.top;
        const std::int64_t width = where.right - where.left;
        bool same = !bits.any(where.top, where.left, height, width);
        if (!same && bits.all(where.top, where.left, height, width)) {
          same =
              mask_kind_ == MaskKind::kBits || (mask_kind_ == MaskKind::kBytes ? constant(byte_mask_.data(), where)
                                                                               : constant(float_mask_.data(), where));
        }
        varies[i * columns + j] = same ? 0 : 1;
      }
    }
  });
}

// As cpu::area_average of what `read(y, x, count, rows, spare)` gives within `where`, 0 elsewhere; `spare` has room for
// count * (channels + 1) floats.
template <typename Read>
void FullSize::area_average(const core::Planes& out, Rectangle where, Read read) {
  constexpr std::int64_t kColumns = 512;  // at a time, so that a row and its sums stay in the nearest cache
  const std::int64_t width = where.right - where.left;
  const Size to = out.size;
  parallel_tasks(to.height, threads_, [&](std::int64_t row, int worker) {
    std::vector<float>& memory = scratch_[static_cast<std::size_t>(worker)];
    const std::int64_t channels = out.channels;
    const auto floats = static_cast<std::size_t>(channels * width + (2 * channels + 1) * kColumns);
    if (memory.size() < floats) memory.resize(floats);
    const Rows sums{memory.data(), width};
    const Rows rows{memory.data() + channels * width, kColumns};
    float* spare = rows.data + channels * kColumns;
    // In units of 1 / to.height of an input row all edges are whole numbers.
    const std::int64_t begin = row * size_.height;
    const std::int64_t end = begin + size_.height;
    const std::int64_t first = std::max(begin / to.height, where.top);
    const std::int64_t last = std::min((end + to.height - 1) / to.height, where.bottom);
    for (std::int64_t left = 0; left < width; left += kColumns) {
      const std::int64_t count = std::min(kColumns, width - left);
      for (std::int64_t c = 0; c < channels; ++c) std::fill_n(sums.channel(c) + left, count, 0.0F);
      for (std::int64_t y = first; y < last; ++y) {
        const std::int64_t overlap = std::min(end, (y + 1) * to.height) - std::max(begin, y * to.height);
        const float weight = static_cast<float>(static_cast<double>(overlap) / static_cast<double>(size_.height));
        read(y, where.left + left, count, rows, spare);
        for (std::int64_t c = 0; c < channels; ++c) {
          const float* from = rows.channel(c);
          float* sum = sums.channel(c) + left;
          GPGAN_INDEPENDENT_LOOP
          for (std::int64_t i = 0; i < count; ++i) sum[i] += weight * from[i];
        }
      }
    }
    for (std::int64_t c = 0; c < channels; ++c) {
      const float* sum = sums.channel(c) - where.left;
      const auto at = [&](std::int64_t i) { return i >= where.left && i < where.right ? sum[i] : 0.0F; };
      for (std::int64_t x = 0; x < to.width; ++x) {
        // Likewise in units of 1 / to.width of a column: two ends, and whole columns between them.
        const std::int64_t left = x * size_.width;
        const std::int64_t right = left + size_.width;
        const std::int64_t from = left / to.width;
        const std::int64_t until = (right - 1) / to.width;
        double total = 0;
        if (from == until) {
          total = static_cast<double>(size_.width) * static_cast<double>(at(from));
        } else {
          float whole = 0;
          for (std::int64_t i = std::max(from + 1, where.left); i < std::min(until, where.right); ++i) whole += sum[i];
          total = static_cast<double>((from + 1) * to.width - left) * static_cast<double>(at(from)) +
                  static_cast<double>(to.width) * static_cast<double>(whole) +
                  static_cast<double>(right - until * to.width) * static_cast<double>(at(until));
        }
        out.channel(c).row(row)[x] = static_cast<float>(total / static_cast<double>(size_.width));
      }
    }
  });
}

void FullSize::averages(const core::Planes& target, const core::Planes& source, const core::Planes& mask) {
  const Rectangle all{0, 0, size_.height, size_.width};
  area_average(target, all, [&](std::int64_t y, std::int64_t x, std::int64_t count, const Rows& rows, float*) {
    read_target(y, x, count, rows);
  });
  area_average(source, all, [&](std::int64_t y, std::int64_t x, std::int64_t count, const Rows& rows, float*) {
    read_source(y, x, count, rows);
  });
  area_average(mask, support_.empty() ? Rectangle{} : support_,
               [&](std::int64_t y, std::int64_t x, std::int64_t count, const Rows& rows, float*) {
                 read_mask(y, x, count, rows.data);
               });
}

void FullSize::add_membrane(const core::Planes& difference) {
  if (inside().all()) {
    // The image hangs together, so that only a region that is all of it has no boundary: w = 0.
    has_membrane_ = false;
  } else {
    membrane_.solve(inside(), channels_, [&](std::int64_t y, std::int64_t x, float* values) {
      float source[4];
      float target[4];
      read_source(y, x, 1, {source, 1});
      read_target(y, x, 1, {target, 1});
      for (std::int64_t c = 0; c < channels_; ++c) values[c] = target[c] - source[c];
    });
    has_membrane_ = true;
  }
  area_average(difference, support_,
               [&](std::int64_t y, std::int64_t x, std::int64_t count, const Rows& rows, float* spare) {
                 const Rows target{spare, count};
                 float* mask = spare + channels_ * count;
                 read_source(y, x, count, rows);
                 read_target(y, x, count, target);
                 read_mask(y, x, count, mask);
                 for (std::int64_t c = 0; c < channels_; ++c) {
                   float* d = rows.channel(c);
                   const float* t = target.channel(c);
                   for (std::int64_t i = 0; i < count; ++i) {
                     const float value = d[i] - t[i];  // apart, or g++ keeps a branch
                     d[i] = mask[i] > 0 ? value : 0;
                   }
                 }
               });
  if (has_membrane_) membrane_.add_area_average(difference);
}

void FullSize::keep_apart(const ImageView& out) {
  const auto keep = [&](ConstImageView& view, std::vector<std::byte>& memory) {
    if (!overlap(view, out)) return;
    const std::int64_t size = size_of(view.dtype);
    memory.resize(static_cast<std::size_t>(view.height * view.width * view.channels * size));
    const ImageView copy{memory.data(), view.dtype,    view.height,
                         view.width,    view.channels, {view.width * view.channels * size, view.channels * size, size}};
    parallel_for(view.height, view.width * view.channels, threads_, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t y = begin; y < end; ++y) copy_row(view, copy, y, 0, view.width);
    });
    view = copy;
  };
  keep(target_, target_copy_);
  keep(source_, source_copy_);
}

}  // namespace GPGAN_CPU_NAMESPACE
}  // namespace gpgan::cpu

#include "cpu/target_end.hpp"
