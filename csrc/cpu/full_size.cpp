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
  float at[256][8] = {};
  constexpr EightFloats() {
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
  extend(source, alpha, threads_, extend_memory_);
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

// cpu::area_average of all that a generator is shown, in one pass over the images: the target, the source, the mask,
// and for the membrane the difference inside the mask.
void FullSize::averages(const core::Planes& target, const core::Planes& source, const core::Planes& mask) {
  constexpr std::int64_t kColumns = 256;  // at a time, so that a row and its sums stay in the nearest cache
  const Size to = target.size;
  masked_average_.resize(static_cast<std::size_t>(channels_ * to.pixels()));
  const Planes difference{masked_average_.data(), channels_, to};
  const std::int64_t planes = 3 * channels_ + 1;
  parallel_tasks(to.height, threads_, [&](std::int64_t row, int worker) {
    std::vector<float>& memory = scratch_[static_cast<std::size_t>(worker)];
    memory.resize(static_cast<std::size_t>(planes * (size_.width + kColumns)));
    const Rows sums{memory.data(), size_.width};
    const Rows rows{memory.data() + planes * size_.width, kColumns};
    // In units of 1 / to.height of an input row all edges are whole numbers.
    const std::int64_t begin = row * size_.height;
    const std::int64_t end = begin + size_.height;
    std::fill_n(sums.data, planes * size_.width, 0.0F);
    for (std::int64_t left = 0; left < size_.width; left += kColumns) {
      const std::int64_t count = std::min(kColumns, size_.width - left);
      const bool within = left < support_.right && left + count > support_.left;
      for (std::int64_t y = begin / to.height; y < (end + to.height - 1) / to.height; ++y) {
        const std::int64_t overlap = std::min(end, (y + 1) * to.height) - std::max(begin, y * to.height);
        const auto weight = static_cast<float>(static_cast<double>(overlap) / static_cast<double>(size_.height));
        const bool masked = within && y >= support_.top && y < support_.bottom;
        read_for_averages(y, left, count, masked, rows);
        for (std::int64_t plane = 0; plane < (masked ? planes : 2 * channels_); ++plane) {
          const float* from = rows.channel(plane);
          float* sum = sums.channel(plane) + left;
          GPGAN_INDEPENDENT_LOOP
          for (std::int64_t i = 0; i < count; ++i) sum[i] += weight * from[i];
        }
      }
    }
    for (std::int64_t c = 0; c < channels_; ++c) {
      average_columns(sums.channel(c), target.channel(c).row(row), to.width);
      average_columns(sums.channel(channels_ + c), source.channel(c).row(row), to.width);
      average_columns(sums.channel(2 * channels_ + 1 + c), difference.channel(c).row(row), to.width);
    }
    average_columns(sums.channel(2 * channels_), mask.row(row), to.width);
  });
}

// Target and source; where `masked`, mask and source - target inside it too.
void FullSize::read_for_averages(std::int64_t y, std::int64_t x, std::int64_t count, bool masked,
                                 const Rows& out) const {
  const Rows source{out.channel(channels_), out.stride};
  read_target(y, x, count, out);
  read_source(y, x, count, source);
  if (!masked) return;
  float* mask = out.channel(2 * channels_);
  read_mask(y, x, count, mask);
  for (std::int64_t c = 0; c < channels_; ++c) {
    const float* t = out.channel(c);
    const float* s = source.channel(c);
    float* d = out.channel(2 * channels_ + 1 + c);
    GPGAN_INDEPENDENT_LOOP
    for (std::int64_t i = 0; i < count; ++i) {
      const float value = s[i] - t[i];  // apart, or g++ keeps a branch
      d[i] = mask[i] > 0 ? value : 0;
    }
  }
}

void FullSize::average_columns(const float* sum, float* out, std::int64_t count) const {
  for (std::int64_t x = 0; x < count; ++x) {
    // As above in units of 1 / count of a column: two ends, and whole columns between them.
    const std::int64_t left = x * size_.width;
    const std::int64_t right = left + size_.width;
    const std::int64_t from = left / count;
    const std::int64_t until = (right - 1) / count;
    double total = 0;
    if (from == until) {
      total = static_cast<double>(size_.width) * static_cast<double>(sum[from]);
    } else {
      // Partial sums, as one would wait for itself.
      float partial[4] = {};
      std::int64_t i = from + 1;
      for (; i + 4 <= until; i += 4) {
        for (std::int64_t k = 0; k < 4; ++k) partial[k] += sum[i + k];
      }
      for (; i < until; ++i) partial[0] += sum[i];
      const float whole = (partial[0] + partial[1]) + (partial[2] + partial[3]);
      total = static_cast<double>((from + 1) * count - left) * static_cast<double>(sum[from]) +
              static_cast<double>(count) * static_cast<double>(whole) +
              static_cast<double>(right - until * count) * static_cast<double>(sum[until]);
    }
    out[x] = static_cast<float>(total / static_cast<double>(size_.width));
  }
}

void FullSize::add_membrane(const core::Planes& difference) {
  std::copy(masked_average_.begin(), masked_average_.end(), difference.data);
  // The image hangs together, so that only a region that is all of it has no boundary: w = 0.
  if (inside().all()) return;
  membrane_.solve(inside(), channels_, [&](std::int64_t y, std::int64_t x, float* values) {
    float source[4];
    float target[4];
    read_source(y, x, 1, {source, 1});
    read_target(y, x, 1, {target, 1});
    for (std::int64_t c = 0; c < channels_; ++c) values[c] = target[c] - source[c];
  });
  has_membrane_ = true;
  membrane_.add_area_average(difference);
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
