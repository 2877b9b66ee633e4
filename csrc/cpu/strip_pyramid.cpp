// The pyramid of a local equation, made to pass through the caches: the full-size images stay in the caller's memory,
// and every level is solved in windows, and under Carry::kCorrection only in those where something is to be solved.
//
// On a level write e for what the level below handed on and x = composite + e + d. For Carry::kCorrection, with L^2 +
// lambda G^2 = A and r = u - L composite (see solve.cpp),
//   A d = L (r - L e),
// which is nothing where the mask is constant and e smooth: there x is composite + e. For Carry::kImage e is the colour
// constraint c itself, x = composite + d, and
//   A d = L r + lambda G (c - G composite).
// Every right-hand side is a stencil, so that a window needs one transform each way.
#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <vector>

#include "core/pyramid.hpp"
#include "cpu/border.hpp"
#include "cpu/full_size.hpp"
#include "cpu/operations.hpp"
#include "cpu/parallel.hpp"
#include "cpu/pixels.hpp"
#include "cpu/resample.hpp"
#include "cpu/strip_pyramid.hpp"
#include "cpu/vectorize.hpp"
#include "cpu/window_solver.hpp"

#include "cpu/target_begin.hpp"

namespace gpgan::cpu {
inline namespace GPGAN_CPU_NAMESPACE {
namespace {

using core::Inputs;
using core::Planes;
using core::Size;

// What a window's end is allowed to disturb the part that is used, relative to what is there.
constexpr double kHaloTolerance = 5e-6;
// A right-hand side up to this is nothing: a sixth of the tolerance against the exact solution on every level.
constexpr float kQuiet = 2e-6F;
constexpr std::int64_t kBlock = 16;           // side of the squares that are looked at for something to solve
constexpr std::int64_t kWindowColumns = 384;  // of the part that is used
constexpr std::int64_t kAddedColumns = 1024;  // of a part where nothing is solved
constexpr std::int64_t kReducedRows = 16;     // that a task makes
constexpr std::int64_t kPad = 16;             // floats before and after a row, for neighbours beyond it
constexpr std::int64_t kMembraneRows = 16;    // that are read at a time
// Levels of more pixels than this, the full size apart, are not kept: of them there are bands of rows, made when those
// of the next finer level need them.
constexpr std::int64_t kKeptPixels = std::int64_t{1} << 22;
constexpr std::int64_t kBandRows = 512;  // of the full size

std::int64_t round_up(std::int64_t n, std::int64_t to) { return (n + to - 1) / to * to; }

// Memory for one task at a time; keeps what it had.
class Scratch {
 public:
  // For up to kParts calls of take() that come to `floats`.
  void reserve(std::int64_t floats) {
    const auto needed = static_cast<std::size_t>(floats + (kParts + 1) * kAligned);
    if (memory_.size() < needed) memory_.resize(needed);
    const auto address = reinterpret_cast<std::uintptr_t>(memory_.data()) / sizeof(float);
    used_ = static_cast<std::int64_t>((kAligned - address % kAligned) % kAligned);
  }
  float* take(std::int64_t floats) {
    float* out = memory_.data() + used_;
    used_ += round_up(floats, kAligned);
    return out;
  }

 private:
  static constexpr std::int64_t kAligned = 16;  // floats of a cache line, which vectors should not cross
  static constexpr std::int64_t kParts = 100;
  std::vector<float> memory_;
  std::int64_t used_ = 0;
};

// The membrane at full size, some rows at a time for those who go down the image.
class MembraneRows {
 public:
  MembraneRows(const FullSize& full, std::int64_t channels, std::int64_t x, std::int64_t count, float* memory)
      : full_(&full), channels_(channels), x_(x), count_(count), memory_(memory) {}
  static std::int64_t floats(std::int64_t channels, std::int64_t count) { return channels * kMembraneRows * count; }

  const float* row(std::int64_t c, std::int64_t y) {
    if (y < first_ || y >= end_) {
      first_ = y;
      end_ = std::min(y + kMembraneRows, full_->size().height);
      full_->membrane().read(0, first_, x_, end_ - first_, count_, memory_, count_, kMembraneRows * count_);
    }
    return memory_ + (c * kMembraneRows + y - first_) * count_;
  }

 private:
  const FullSize* full_;
  std::int64_t channels_, x_, count_;
  float* memory_;
  std::int64_t first_ = 0, end_ = 0;
};

// What core::Backend::upsample does, for `count` pixels from an even column on; writes up to one more. `plane` begins
// with row `first_row` of the coarse image; `columns` is scratch for count / 2 + 6 floats.
void upsample_row(const float* plane, std::int64_t first_row, Size coarse, std::int64_t y, std::int64_t x,
                  std::int64_t count, float* columns, float* out) {
  constexpr float kFar = -0.0234375F;  // Keys' kernel at 1.75, 1.25, 0.75 and 0.25
  constexpr float kOuter = -0.0703125F;
  constexpr float kInner = 0.2265625F;
  constexpr float kNear = 0.8671875F;
  const std::int64_t k = y / 2;
  const std::int64_t side = y % 2 == 0 ? -1 : 1;
  const auto row = [&](std::int64_t i) { return plane + (reflect(i, coarse.height) - first_row) * coarse.width; };
  const float* far = row(k + 2 * side);
  const float* inner = row(k + side);
  const float* near = row(k);
  const float* outer = row(k - side);

  const std::int64_t first = x / 2 - 2;
  const std::int64_t end = (x + count - 1) / 2 + 3;
  const std::int64_t begin_whole = std::max<std::int64_t>(first, 0);
  const std::int64_t end_whole = std::min(end, coarse.width);
  float* whole = columns - first;
  GPGAN_INDEPENDENT_LOOP
  for (std::int64_t i = begin_whole; i < end_whole; ++i) {
    whole[i] = kFar * far[i] + kInner * inner[i] + kNear * near[i] + kOuter * outer[i];
  }
  const auto mirrored = [&](std::int64_t i) {
    const std::int64_t at = reflect(i, coarse.width);
    return kFar * far[at] + kInner * inner[at] + kNear * near[at] + kOuter * outer[at];
  };
  for (std::int64_t i = first; i < begin_whole; ++i) whole[i] = mirrored(i);
  for (std::int64_t i = end_whole; i < end; ++i) whole[i] = mirrored(i);

  const float* v = columns + 2;
  const std::int64_t pairs = (count + 1) / 2;
  GPGAN_INDEPENDENT_LOOP
  for (std::int64_t i = 0; i < pairs; ++i) {
    out[2 * i] = kFar * v[i - 2] + kInner * v[i - 1] + kNear * v[i] + kOuter * v[i + 1];
    out[2 * i + 1] = kFar * v[i + 2] + kInner * v[i + 1] + kNear * v[i] + kOuter * v[i - 1];
  }
}

// A row's neighbours beyond its ends are the ends themselves.
void pad(float* row, std::int64_t count) {
  row[-1] = row[0];
  row[count] = row[count - 1];
}

// The larger the right-hand side that interpolation leaves, L^2 of core::Backend::upsample, by differences of what is
// interpolated: Keys' kernel keeps quadratics. The factors are the sums of the stencils' absolute coefficients.
constexpr float kThirdDifference = 0.41F;
constexpr float kMixedDifference = 0.24F;
constexpr float kOvershoot = 1.5F;  // of the interpolation itself

class StripPyramid final : public core::Pyramid {
 public:
  StripPyramid(const Options& options, const std::vector<Size>& sizes, std::int64_t channels, int threads)
      : channels_(channels),
        carry_(options.carry),
        threads_(threads),
        color_weight_(static_cast<float>(options.color_weight)),
        local_(options.color_weight, options.sigma),
        halo_(round_up(local_.halo(kHaloTolerance), 2)),
        full_(sizes.back(), channels, threads),
        to_start_(Resampling::resize({options.image_size, options.image_size}, sizes.front())),
        workers_(static_cast<std::size_t>(threads)) {
    for (const Size& size : sizes) {
      Level& level = levels_.emplace_back();
      level.size = size;
      // Under Carry::kCorrection windows follow the seam, and what is solved beside it is wasted.
      const std::int64_t wanted = (carry_ == Carry::kCorrection ? 64 : 156) + 2 * halo_;
      const std::int64_t rows = std::min(good_length(wanted), size.height);
      level.solver = std::make_unique<WindowSolver>(local_, rows);
      level.used_rows = rows == size.height ? rows : rows - 2 * halo_;
      level.kept = size.pixels() <= kKeptPixels;
      level.block_columns = (size.width + kBlock - 1) / kBlock;
      level.block_rows = (size.height + kBlock - 1) / kBlock;
    }
  }

  bool load(const Inputs& inputs) override { return full_.load(inputs); }

  void averages(const Planes& target, const Planes& source, const Planes& mask) override {
    full_.averages(target, source, mask);
  }

  void add_membrane(const Planes& difference) override { full_.add_membrane(difference); }

  void reduce(std::size_t index) override {
    if (index + 2 == levels_.size()) {
      place_regions();
      if (only_seam()) find_seam();
    }
    Level& level = levels_[index];
    if (!level.kept) return;
    const Rectangle region = level.region;
    const std::int64_t height = region.bottom - region.top;
    const std::int64_t width = region.right - region.left;
    level.difference.resize(static_cast<std::size_t>((channels_ + 1) * height * width));  // and the mask
    const auto row = [&](std::int64_t plane, std::int64_t y) {
      return level.difference.data() + (plane * height + y - region.top) * width - region.left;
    };
    reductions_.clear();
    reductions_.reserve(
        static_cast<std::size_t>((level.size.height / kReducedRows + 1) * (level.size.width / kPad + 1)));
    for (std::int64_t top = region.top; top < region.bottom; top += kReducedRows) {
      const std::int64_t bottom = std::min(top + kReducedRows, region.bottom);
      if (only_seam()) {
        add_reductions(level, {top, region.left, bottom, region.right});
      } else {
        reductions_.push_back({top, region.left, bottom, region.right});
      }
    }
    if (only_seam()) {
      // Elsewhere the mask is 0 or 1, and the difference counts for nothing.
      for (std::int64_t y = region.top; y < region.bottom; ++y) {
        float* mask = row(channels_, y);
        for (std::int64_t x = region.left; x < region.right; ++x) mask[x] = level.inside.test(y, x) ? 1.0F : 0.0F;
      }
    }
    reduce_parts(index, {true, false}, row);
    if (carry_ == Carry::kCorrection) return;
    level.target.resize(static_cast<std::size_t>(channels_ * level.size.pixels()));
    reductions_.clear();
    for (std::int64_t top = 0; top < level.size.height; top += kReducedRows) {
      reductions_.push_back({top, 0, std::min(top + kReducedRows, level.size.height), level.size.width});
    }
    reduce_parts(index, {false, true}, [&](std::int64_t plane, std::int64_t y) {
      return level.target.data() + (plane * level.size.height + y) * level.size.width;
    });
  }

  void start(const Planes& carried) override {
    start_.resize(static_cast<std::size_t>(channels_ * levels_.front().size.pixels()));
    to_start_(carried, {start_.data(), channels_, levels_.front().size}, threads_);
  }

  void solve(std::size_t index) override {
    if (levels_[index].kept) provide(index, 0, levels_[index].size.height);
  }

  void finish(const ImageView& out) override {
    if (levels_.size() == 1) place_regions();
    full_.keep_apart(out);
    // A change of less than half a step of integers rounds to none. Floats may lie a little outside their range, and
    // are clamped.
    float unseen = -1;
    if (out.dtype == full_.target().dtype && out.dtype == DType::kUint8) unseen = 0.49F / 255;
    if (out.dtype == full_.target().dtype && out.dtype == DType::kUint16) unseen = 0.49F / 65535;
    const auto write = [&](const float* rows, std::int64_t stride, std::int64_t y, std::int64_t x, std::int64_t count) {
      write_row(rows, stride, out, y, x, count);
    };
    const std::size_t last = levels_.size() - 1;
    Level& level = levels_[last];
    mark_varying(last);
    const bool bands = last > 0 && !levels_[last - 1].kept;
    const std::int64_t height = bands ? kBandRows : level.size.height;
    for (std::int64_t top = 0; top < level.size.height; top += height) {
      const std::int64_t bottom = std::min(top + height, level.size.height);
      provide_below(last, top, bottom);
      make_tasks(last, top, bottom, unseen);
      parallel_tasks(std::ssize(level.tasks), threads_, [&](std::int64_t i, int worker) {
        const Task& task = level.tasks[static_cast<std::size_t>(i)];
        if (task.kind == Kind::kCopy) {
          for (std::int64_t y = task.part.top; y < task.part.bottom; ++y) {
            copy_row(full_.target(), out, y, task.part.left, task.part.right - task.part.left);
          }
        } else {
          run(last, task, workers_[static_cast<std::size_t>(worker)], write);
        }
      });
    }
  }

 private:
  // What becomes of a part of a level: solved, only put together, or the target itself.
  enum class Kind : std::uint8_t { kSolve, kAdd, kCopy };

  struct Task {
    Kind kind;
    Rectangle part;
  };

  struct Level {
    Size size;
    bool kept;  // wholly, and not in bands
    std::unique_ptr<WindowSolver> solver;
    std::int64_t used_rows;  // of a window, at most
    std::int64_t block_rows, block_columns;
    Rectangle region;               // where the mask and the difference are kept, and the mask 0 beyond
    std::vector<float> difference;  // planes of the region; the mask is the last of them
    // For masks of 0 and 1: where this level's is not 0, where neither 0 nor 1, and where the difference counts.
    BitPlane inside, seam, counts;
    std::vector<float> target;   // for Carry::kImage
    std::vector<float> carried;  // what the level hands on, planes of rows [carried_top, carried_bottom)
    std::int64_t carried_top = 0, carried_bottom = 0;
    // By blocks: does the mask vary, is there something to solve, what is the largest change carried in; and what was
    // solved, for the next finer level.
    std::vector<std::uint8_t> varies, active, solved;
    std::vector<float> change;
    std::vector<Task> tasks;
  };

  // A length that the transform takes at once, and a multiple of 4.
  static std::int64_t good_length(std::int64_t n) {
    n = round_up(n, 4);
    while (!Fft::has_length(n)) n += 4;
    return n;
  }

  [[nodiscard]] bool is_full(const Level& level) const { return &level == &levels_.back(); }

  // Wherever a level's mask is not 0, and two pixels more; wide enough that the coarser levels' can be made of it.
  void place_regions() {
    const auto grown = [](Rectangle r, std::int64_t by, Size size) {
      return Rectangle{std::max<std::int64_t>(r.top - by, 0), std::max<std::int64_t>(r.left - by, 0),
                       std::min(r.bottom + by, size.height), std::min(r.right + by, size.width)};
    };
    levels_.back().region = full_.support();
    for (std::size_t i = levels_.size() - 1; i > 0; --i) {
      const Rectangle fine = levels_[i].region;
      // Coarse pixel k is made of 2k - 1 to 2k + 2.
      levels_[i - 1].region = grown({(fine.top - 1) / 2, (fine.left - 1) / 2, fine.bottom / 2 + 1, fine.right / 2 + 1},
                                    0, levels_[i - 1].size);
    }
    for (std::size_t i = 0; i < levels_.size(); ++i) {
      Level& level = levels_[i];
      level.region = grown(level.region, 2, level.size);
      if (i == 0) continue;
      const Rectangle below = levels_[i - 1].region;
      const Rectangle needed =
          grown({2 * below.top - 1, 2 * below.left - 1, 2 * below.bottom + 1, 2 * below.right + 1}, 0, level.size);
      level.region = {std::min(level.region.top, needed.top), std::min(level.region.left, needed.left),
                      std::max(level.region.bottom, needed.bottom), std::max(level.region.right, needed.right)};
    }
  }

  // ------------------------------------------------------------------------------------- a level's images by rows

  // Which planes of rows are wanted: the difference's and the mask, the target's.
  struct Want {
    bool images, target;
    [[nodiscard]] std::int64_t planes(std::int64_t channels) const {
      return (images ? channels + 1 : 0) + (target ? channels : 0);
    }
  };

  // Rows of a level's images, for those who go down the image: as the level keeps them, or, where it does not or when
  // asked to, made of the next finer level's.
  class ImageRows {
   public:
    static std::int64_t floats(const StripPyramid& pyramid, std::size_t index, std::int64_t count, Want want,
                               bool make) {
      const std::int64_t planes = want.planes(pyramid.channels_);
      std::int64_t total = 0;
      for (;; ++index, make = false) {
        const Level& level = pyramid.levels_[index];
        if (pyramid.is_full(level)) break;
        if (level.kept && !make) return total;
        count = 2 * count + 2;
        const std::int64_t pitch = round_up(count, kPad) + 2 * kPad;
        total += (4 * planes + 1) * pitch;
      }
      return total + pyramid.channels_ * count + MembraneRows::floats(pyramid.channels_, count);
    }

    ImageRows(const StripPyramid& pyramid, std::size_t index, std::int64_t x, std::int64_t count, Want want, bool make,
              Scratch& scratch)
        : pyramid_(pyramid),
          want_(want),
          planes_(want.planes(pyramid.channels_)),
          membrane_(pyramid.full_, pyramid.channels_, x, count, nullptr) {
      for (Stage* stage = stages_;; ++stage, ++index, make = false) {
        const Level& level = pyramid.levels_[index];
        stage->level = &level;
        stage->x = x;
        stage->count = count;
        stage->made = !pyramid.is_full(level) && (!level.kept || make);
        if (!stage->made) break;
        const Size finer = pyramid.levels_[index + 1].size;
        const std::int64_t left = std::max<std::int64_t>(2 * x - 1, 0);
        count = std::min(2 * (x + count) + 1, finer.width) - left;
        x = left;
        stage->pitch = round_up(count, kPad) + 2 * kPad;
        stage->ring = scratch.take(4 * planes_ * stage->pitch);
        stage->sums = scratch.take(stage->pitch) + kPad;
        std::fill_n(stage->held, 4, std::int64_t{-1});
      }
      if (index + 1 < pyramid.levels_.size()) return;
      spare_ = {scratch.take(pyramid.channels_ * count), count};
      membrane_ = {pyramid.full_, pyramid.channels_, x, count,
                   scratch.take(MembraneRows::floats(pyramid.channels_, count))};
    }

    // The planes that are wanted: difference, mask, target.
    void read(std::int64_t y, const Rows& out) { read(stages_, y, out); }

   private:
    static constexpr int kMaxStages = 32;
    struct Stage {
      const Level* level;
      std::int64_t x, count;
      bool made;
      std::int64_t pitch;  // of the finer level's rows, four of which are held
      float* ring;
      float* sums;
      std::int64_t held[4];
    };

    void read(Stage* stage, std::int64_t y, const Rows& out) {
      if (stage->made) {
        make(stage, y, out);
      } else if (pyramid_.is_full(*stage->level)) {
        read_full(*stage, y, out);
      } else {
        read_kept(*stage, y, out);
      }
    }

    // core::Backend::downsample.
    void make(Stage* stage, std::int64_t y, const Rows& out) {
      Stage* finer = stage + 1;
      const Size size = finer->level->size;
      const std::int64_t count = finer->count;
      const auto fetch = [&](std::int64_t i) {
        const std::int64_t row = reflect(i, size.height);
        float* slot = stage->ring + row % 4 * planes_ * stage->pitch + kPad;
        if (stage->held[row % 4] != row) {
          stage->held[row % 4] = row;
          read(finer, row, {slot, stage->pitch});
        }
        return slot;
      };
      const float* a = fetch(2 * y - 1);
      const float* b = fetch(2 * y);
      const float* c = fetch(2 * y + 1);
      const float* d = fetch(2 * y + 2);
      float* sums = stage->sums;
      for (std::int64_t plane = 0; plane < planes_; ++plane) {
        const std::int64_t at = plane * stage->pitch;
        for (std::int64_t x = 0; x < count; ++x) {
          sums[x] = 0.125F * (a[at + x] + d[at + x]) + 0.375F * (b[at + x] + c[at + x]);
        }
        sums[-1] = sums[0];  // where the rows begin with the image; else not read
        if (finer->x + count == size.width) {
          sums[count] = sums[count - 1];
          sums[count + 1] = sums[std::max<std::int64_t>(count - 2, 0)];
        }
        const float* v = sums + 2 * stage->x - finer->x;
        float* to = out.channel(plane);
        GPGAN_INDEPENDENT_LOOP
        for (std::int64_t x = 0; x < stage->count; ++x) {
          to[x] = 0.125F * (v[2 * x - 1] + v[2 * x + 2]) + 0.375F * (v[2 * x] + v[2 * x + 1]);
        }
      }
    }

    void read_kept(const Stage& stage, std::int64_t y, const Rows& out) const {
      const Level& level = *stage.level;
      const std::int64_t channels = pyramid_.channels_;
      if (want_.images) {
        const Rectangle& region = level.region;
        const std::int64_t height = region.bottom - region.top;
        const std::int64_t width = region.right - region.left;
        const std::int64_t begin = std::clamp(region.left - stage.x, std::int64_t{0}, stage.count);
        const std::int64_t end = std::clamp(region.right - stage.x, begin, stage.count);
        const bool within = y >= region.top && y < region.bottom && begin < end;
        for (std::int64_t plane = 0; plane <= channels; ++plane) {
          float* to = out.channel(plane);
          if (!within) {
            std::fill_n(to, stage.count, 0.0F);
            continue;
          }
          std::fill_n(to, begin, 0.0F);
          const float* from =
              level.difference.data() + (plane * height + y - region.top) * width + stage.x - region.left;
          std::copy(from + begin, from + end, to + begin);
          std::fill(to + end, to + stage.count, 0.0F);
        }
      }
      if (!want_.target) return;
      for (std::int64_t c = 0; c < channels; ++c) {
        std::copy_n(level.target.data() + (c * level.size.height + y) * level.size.width + stage.x, stage.count,
                    out.channel(planes_ - channels + c));
      }
    }

    void read_full(const Stage& stage, std::int64_t y, const Rows& out) {
      const FullSize& full = pyramid_.full_;
      const std::int64_t channels = pyramid_.channels_;
      const Rows target = want_.target ? Rows{out.channel(planes_ - channels), out.stride} : spare_;
      full.read_target(y, stage.x, stage.count, target);
      if (!want_.images) return;
      float* mask = out.channel(channels);
      full.read_source(y, stage.x, stage.count, out);
      full.read_mask(y, stage.x, stage.count, mask);
      for (std::int64_t c = 0; c < channels; ++c) {
        float* d = out.channel(c);
        const float* t = target.channel(c);
        if (full.has_membrane()) {
          const float* w = membrane_.row(c, y);
          GPGAN_INDEPENDENT_LOOP
          for (std::int64_t i = 0; i < stage.count; ++i) {
            const float value = d[i] - t[i] + w[i];  // apart, or g++ keeps a branch
            d[i] = mask[i] > 0 ? value : 0;
          }
        } else {
          GPGAN_INDEPENDENT_LOOP
          for (std::int64_t i = 0; i < stage.count; ++i) d[i] -= t[i];
        }
      }
    }

    const StripPyramid& pyramid_;
    Want want_;
    std::int64_t planes_;
    Stage stages_[kMaxStages];
    Rows spare_;
    MembraneRows membrane_;
  };

  // What the level below hands on, at this level's size.
  void read_carried(std::size_t index, std::int64_t y, std::int64_t x, std::int64_t count, float* columns,
                    const Rows& out) const {
    for (std::int64_t c = 0; c < channels_; ++c) {
      if (index == 0) {
        const Size size = levels_.front().size;
        std::copy_n(start_.data() + (c * size.height + y) * size.width + x, count, out.channel(c));
      } else {
        const Level& below = levels_[index - 1];
        const std::int64_t rows = below.carried_bottom - below.carried_top;
        upsample_row(below.carried.data() + c * rows * below.size.width, below.carried_top, below.size, y, x, count,
                     columns, out.channel(c));
      }
    }
  }

  // ------------------------------------------------------------------------------------------------------ reduction

  // Where the mask is 0 and 1 alone, a change to the composite has to do with the difference at the seam only.
  [[nodiscard]] bool only_seam() const { return carry_ == Carry::kCorrection && full_.mask_is_binary(); }

  // The pixels whose difference counts on each level: two around those where the mask varies, and what the coarser
  // level's are made of.
  void find_seam() {
    levels_.back().inside = full_.inside();
    for (std::size_t i = levels_.size() - 1; i > 0; --i) {
      Level& coarse = levels_[i - 1];
      // Somewhere above 0, and somewhere below 1.
      downsample_any(levels_[i].inside, coarse.inside);
      complement(levels_[i].inside, outside_);
      if (i + 1 < levels_.size()) {
        // A coarse pixel that is not wholly inside counts as inside; those it shares are outside too.
        for (std::int64_t y = 0; y < outside_.height(); ++y) {
          for (std::int64_t k = 0; k < outside_.stride(); ++k) outside_.row(y)[k] |= levels_[i].seam.row(y)[k];
        }
      }
      downsample_any(outside_, coarse.seam);
      for (std::int64_t y = 0; y < coarse.seam.height(); ++y) {
        for (std::int64_t k = 0; k < coarse.seam.stride(); ++k) coarse.seam.row(y)[k] &= coarse.inside.row(y)[k];
      }
    }
    for (std::size_t i = 0; i + 1 < levels_.size(); ++i) {
      Level& level = levels_[i];
      level.counts.resize(level.size.height, level.size.width);
      if (i > 0) add_doubled(levels_[i - 1].counts, level.counts);
      outside_.resize(level.size.height, level.size.width);
      dilate8(level.counts, outside_);
      if (i > 0) level.counts = outside_;
      outside_.resize(level.size.height, level.size.width);
      dilate8(level.seam, outside_);
      dilate8(outside_, level.counts);
    }
  }

  static void complement(const BitPlane& from, BitPlane& to) {
    to.resize(from.height(), from.width());
    for (std::int64_t y = 0; y < from.height(); ++y) {
      for (std::int64_t k = 0; k < from.stride(); ++k) to.row(y)[k] = ~from.row(y)[k];
      if (from.stride() > 0) to.row(y)[from.stride() - 1] &= from.last_word();
    }
  }

  // Runs of columns in which a pixel of `rows` counts.
  void add_reductions(const Level& level, const Rectangle& rows) {
    constexpr std::int64_t kStep = 16;
    const auto counts = [&](std::int64_t x) { return level.counts.any(rows.top, x, rows.bottom - rows.top, kStep); };
    for (std::int64_t x = rows.left / kStep * kStep; x < rows.right;) {
      if (!counts(x)) {
        x += kStep;
        continue;
      }
      const std::int64_t first = x;
      std::int64_t last = x;
      for (x += kStep; x < rows.right && x - last <= 2 * kStep; x += kStep) {
        if (counts(x)) last = x;
      }
      reductions_.push_back({rows.top, std::max(first, rows.left), rows.bottom, std::min(last + kStep, rows.right)});
    }
  }

  // Makes parts of a level, those of reductions_, of the next finer one; `row(plane, y)` is where to.
  template <typename Row>
  void reduce_parts(std::size_t index, Want want, Row row) {
    const std::int64_t planes = want.planes(channels_);
    // As much as the widest part could need, so that another mask needs no more.
    const std::int64_t widest = levels_[index].size.width;
    reserve_all(ImageRows::floats(*this, index, widest, want, true) + planes * widest);
    parallel_tasks(std::ssize(reductions_), threads_, [&](std::int64_t task, int worker) {
      const Rectangle& part = reductions_[static_cast<std::size_t>(task)];
      const std::int64_t count = part.right - part.left;
      Scratch& scratch = workers_[static_cast<std::size_t>(worker)];
      scratch.reserve(ImageRows::floats(*this, index, count, want, true) + planes * count);
      const Rows rows{scratch.take(planes * count), count};
      ImageRows images(*this, index, part.left, count, want, true, scratch);
      for (std::int64_t y = part.top; y < part.bottom; ++y) {
        images.read(y, rows);
        for (std::int64_t plane = 0; plane < planes; ++plane) {
          std::copy_n(rows.channel(plane), count, row(plane, y) + part.left);
        }
      }
    });
  }

  // ---------------------------------------------------------------------------------------------- what is to be done

  // Where the mask is not the same in a block and a pixel around it.
  void mark_varying(std::size_t index) {
    Level& level = levels_[index];
    level.varies.assign(static_cast<std::size_t>(level.block_rows * level.block_columns), 0);
    const Rectangle region = level.region;
    if (is_full(level)) return full_.mark_varying(kBlock, level.varies.data());
    if (!level.kept) {
      // Of the finer level's, which reach a little farther.
      const Level& finer = levels_[index + 1];
      for (std::int64_t i = 0; i < finer.block_rows; ++i) {
        for (std::int64_t j = 0; j < finer.block_columns; ++j) {
          if (finer.varies[static_cast<std::size_t>(i * finer.block_columns + j)] == 0) continue;
          for (std::int64_t y = std::max<std::int64_t>(i - 1, 0) / 2; y <= std::min((i + 1) / 2, level.block_rows - 1);
               ++y) {
            for (std::int64_t x = std::max<std::int64_t>(j - 1, 0) / 2;
                 x <= std::min((j + 1) / 2, level.block_columns - 1); ++x) {
              level.varies[static_cast<std::size_t>(y * level.block_columns + x)] = 1;
            }
          }
        }
      }
      return;
    }
    const std::int64_t width = region.right - region.left;
    const float* mask = level.difference.data() + channels_ * (region.bottom - region.top) * width;
    const std::int64_t first = region.top / kBlock;
    parallel_for((region.bottom - 1) / kBlock + 1 - first, kBlock * width, threads_,
                 [&](std::int64_t begin, std::int64_t end) {
                   for (std::int64_t i = begin + first; i < end + first; ++i) {
                     for (std::int64_t j = region.left / kBlock; j * kBlock < region.right; ++j) {
                       // The region is two pixels wider than the mask, so that its border says what is beyond.
                       const std::int64_t top = std::max(i * kBlock - 1, region.top);
                       const std::int64_t bottom = std::min((i + 1) * kBlock + 1, region.bottom);
                       const std::int64_t left = std::max(j * kBlock - 1, region.left) - region.left;
                       const std::int64_t right = std::min((j + 1) * kBlock + 1, region.right) - region.left;
                       const float value = mask[(top - region.top) * width + left];
                       bool same = true;
                       for (std::int64_t y = top; y < bottom; ++y) {
                         const float* row = mask + (y - region.top) * width;
                         for (std::int64_t x = left; x < right; ++x) same &= row[x] == value;
                       }
                       level.varies[static_cast<std::size_t>(i * level.block_columns + j)] = same ? 0 : 1;
                     }
                   }
                 });
  }

  // The level below ends half a pixel of its own beyond an odd side's end, and mirrors there: what is smooth on it has
  // a kink on this level.
  [[nodiscard]] static bool is_odd_end(const Level& level, std::int64_t i, std::int64_t j) {
    return (level.size.height % 2 == 1 && i + 1 == level.block_rows) ||
           (level.size.width % 2 == 1 && j + 1 == level.block_columns);
  }

  // Where what is carried in is not smooth, or to be seen at all. What the level below did not solve was smooth there,
  // and is smoother here: third differences fall to an eighth.
  void mark_rough(std::size_t index, std::int64_t first_block_row, std::int64_t end_block_row) {
    Level& level = levels_[index];
    const Level& below = levels_[index - 1];
    const auto solved_beside = [&](std::int64_t i, std::int64_t j) {
      if (is_odd_end(level, i, j)) return true;
      // The interpolation and the stencil reach three pixels of the level below, less than half a block.
      const std::int64_t row = i % 2 == 0 ? -1 : 1;
      const std::int64_t column = j % 2 == 0 ? -1 : 1;
      const auto at = [&](std::int64_t y, std::int64_t x) {
        y = std::clamp<std::int64_t>(y, 0, below.block_rows - 1);
        x = std::clamp<std::int64_t>(x, 0, below.block_columns - 1);
        return below.solved[static_cast<std::size_t>(y * below.block_columns + x)] != 0;
      };
      return at(i / 2, j / 2) || at(i / 2 + row, j / 2) || at(i / 2, j / 2 + column) || at(i / 2 + row, j / 2 + column);
    };
    reserve_all(measured_floats(below.size.width));
    parallel_tasks(end_block_row - first_block_row, threads_, [&](std::int64_t task, int worker) {
      const std::int64_t i = first_block_row + task;
      for (std::int64_t begin = 0; begin < level.block_columns;) {
        const auto at = static_cast<std::size_t>(i * level.block_columns + begin);
        if (!solved_beside(i, begin)) {
          const std::int64_t parent = std::min(i / 2, below.block_rows - 1) * below.block_columns +
                                      std::min(begin / 2, below.block_columns - 1);
          level.active[at] = level.varies[at];
          level.change[at] = kOvershoot * below.change[static_cast<std::size_t>(parent)];
          ++begin;
          continue;
        }
        std::int64_t end = begin + 1;
        while (end < level.block_columns && solved_beside(i, end)) ++end;
        measure_blocks(index, i, begin, end, workers_[static_cast<std::size_t>(worker)]);
        begin = end;
      }
    });
  }

  static std::int64_t measured_floats(std::int64_t count) { return 6 * (round_up(count + 2 * kPad, kPad) + 2 * kPad); }

  // Blocks [begin, end) of a row of blocks: how rough and how large what is carried in is.
  void measure_blocks(std::size_t index, std::int64_t block_row, std::int64_t begin, std::int64_t end,
                      Scratch& scratch) {
    Level& level = levels_[index];
    const Level& below = levels_[index - 1];
    const Size size = below.size;
    const float threshold = kQuiet * std::min(color_weight_, 1.0F);
    constexpr std::int64_t kHalf = kBlock / 2;
    constexpr std::int64_t kReach = 3;  // of the interpolation and the stencil, in pixels of the level below
    constexpr std::int64_t kBefore = 4;
    const std::int64_t left = begin * kHalf - kReach;
    const std::int64_t right = std::min(end * kHalf, size.width) + kReach;
    const std::int64_t pitch = round_up(right - left, kPad) + 2 * kPad;
    scratch.reserve(measured_floats(right - left));
    float* rows[4];
    for (float*& row : rows) row = scratch.take(pitch) + kPad - left;
    float* rough = scratch.take(pitch) + kPad - left;
    float* most = scratch.take(pitch) + kPad - left;
    std::fill(rough + left, rough + right, 0.0F);
    std::fill(most + left, most + right, 0.0F);
    const std::int64_t top = block_row * kHalf - kReach;
    const std::int64_t bottom = std::min((block_row + 1) * kHalf, size.height) + kReach - 1;
    for (std::int64_t c = 0; c < channels_; ++c) {
      const auto fetch = [&](std::int64_t y) {
        const std::int64_t held = below.carried_bottom - below.carried_top;
        const float* from =
            below.carried.data() + (c * held + reflect(y, size.height) - below.carried_top) * size.width;
        float* to = rows[(y + kBefore) % 4];
        const std::int64_t whole_left = std::max<std::int64_t>(left - 1, 0);
        const std::int64_t whole_right = std::min(right + 1, size.width);
        std::copy(from + whole_left, from + whole_right, to + whole_left);
        for (std::int64_t x = left - 1; x < whole_left; ++x) to[x] = from[reflect(x, size.width)];
        for (std::int64_t x = whole_right; x < right + 1; ++x) to[x] = from[reflect(x, size.width)];
      };
      for (std::int64_t y = top - 1; y < top + 2; ++y) fetch(y);
      for (std::int64_t y = top; y < bottom; ++y) {
        fetch(y + 2);
        const float* a = rows[(y - 1 + kBefore) % 4];
        const float* b = rows[(y + kBefore) % 4];
        const float* d = rows[(y + 1 + kBefore) % 4];
        const float* e = rows[(y + 2 + kBefore) % 4];
        GPGAN_INDEPENDENT_LOOP
        for (std::int64_t x = left; x < right - 1; ++x) {
          const float along = b[x + 2] - b[x - 1] - 3 * (b[x + 1] - b[x]);
          const float down = e[x] - a[x] - 3 * (d[x] - b[x]);
          const float mixed =
              (a[x - 1] + a[x + 1] + d[x - 1] + d[x + 1] - 2 * (a[x] + d[x])) - 2 * (b[x - 1] + b[x + 1] - 2 * b[x]);
          const float all = kThirdDifference * (std::abs(along) + std::abs(down)) + kMixedDifference * std::abs(mixed);
          rough[x] = std::max(rough[x], all);
          most[x] = std::max(most[x], std::abs(b[x]));
        }
        if (y + 1 == size.height && level.size.height % 2 == 1) {
          for (std::int64_t x = left; x < right - 1; ++x) rough[x] = std::max(rough[x], std::abs(b[x] - a[x]));
        }
        if (const std::int64_t x = size.width - 1; level.size.width % 2 == 1 && x < right - 1) {
          rough[x] = std::max(rough[x], std::abs(b[x] - b[x - 1]));
        }
      }
    }
    for (std::int64_t j = begin; j < end; ++j) {
      float largest = 0;
      float change = 0;
      const std::int64_t stop = std::min((j + 1) * kHalf + kReach, right - 1);
      for (std::int64_t x = j * kHalf - kReach; x < stop; ++x) {
        largest = std::max(largest, rough[x]);
        change = std::max(change, most[x]);
      }
      const auto at = static_cast<std::size_t>(block_row * level.block_columns + j);
      level.active[at] = level.varies[at] != 0 || largest > threshold ? 1 : 0;
      level.change[at] = kOvershoot * change;
    }
  }

  void reserve_all(std::int64_t floats) {
    for (Scratch& scratch : workers_) scratch.reserve(floats);
  }

  // Makes rows [top, bottom) of what a level hands on.
  void provide(std::size_t index, std::int64_t top, std::int64_t bottom) {
    Level& level = levels_[index];
    if (level.kept) mark_varying(index);
    provide_below(index, top, bottom);
    make_tasks(index, top, bottom, 0);
    level.carried_top = top;
    level.carried_bottom = bottom;
    level.carried.resize(static_cast<std::size_t>(channels_ * (bottom - top) * level.size.width));
    const auto write = [&](const float* rows, std::int64_t stride, std::int64_t y, std::int64_t x, std::int64_t count) {
      for (std::int64_t c = 0; c < channels_; ++c) {
        const float* row = rows + c * stride;
        float* to = level.carried.data() + (c * (bottom - top) + y - top) * level.size.width + x;
        if (carry_ == Carry::kImage) {
          for (std::int64_t i = 0; i < count; ++i) to[i] = std::clamp(row[i], 0.0F, 1.0F);
        } else {
          std::copy_n(row, count, to);
        }
      }
    };
    parallel_tasks(std::ssize(level.tasks), threads_, [&](std::int64_t i, int worker) {
      run(index, level.tasks[static_cast<std::size_t>(i)], workers_[static_cast<std::size_t>(worker)], write);
    });
  }

  // Rows [top, bottom) are divided into so many strips of windows; strip i begins at strip_top().
  [[nodiscard]] static std::int64_t count_strips(const Level& level, std::int64_t top, std::int64_t bottom) {
    return (bottom - top + level.used_rows - 1) / level.used_rows;
  }
  [[nodiscard]] static std::int64_t strip_top(const Level& level, std::int64_t top, std::int64_t bottom,
                                              std::int64_t i) {
    return top + i * (bottom - top) / count_strips(level, top, bottom);
  }
  // The first row of the window whose part begins at row `top`.
  [[nodiscard]] std::int64_t window_top(const Level& level, std::int64_t top) const {
    return std::clamp<std::int64_t>(top - halo_, 0, level.size.height - level.solver->rows());
  }

  // Makes the rows of the level below that rows [top, bottom) need, if they are not there already.
  void provide_below(std::size_t index, std::int64_t top, std::int64_t bottom) {
    if (index == 0 || levels_[index - 1].kept) return;
    const Level& level = levels_[index];
    const std::int64_t last = strip_top(level, top, bottom, count_strips(level, top, bottom) - 1);
    // The search for what is not smooth goes by whole blocks.
    const std::int64_t first_row =
        std::min(window_top(level, top), std::max<std::int64_t>(top - halo_, 0) / kBlock * kBlock);
    const std::int64_t end_row =
        std::max(window_top(level, last) + level.solver->rows(), round_up(bottom + halo_, kBlock));
    constexpr std::int64_t kTaps = 5;  // of the interpolation, and the differences that look for what it leaves
    const Size below = levels_[index - 1].size;
    mark_varying(index - 1);
    provide(index - 1, std::max<std::int64_t>(first_row / 2 - kTaps, 0), std::min(end_row / 2 + kTaps, below.height));
  }

  // Divides rows [top, bottom) of a level into parts. A change up to `unseen` need not be made.
  void make_tasks(std::size_t index, std::int64_t rows_top, std::int64_t rows_bottom, float unseen) {
    Level& level = levels_[index];
    const bool all = carry_ == Carry::kImage || index == 0;
    if (!all) {
      level.active.resize(level.varies.size());
      level.change.resize(level.varies.size());
      mark_rough(index, std::max<std::int64_t>(rows_top - halo_, 0) / kBlock,
                 (std::min(rows_bottom + halo_, level.size.height) + kBlock - 1) / kBlock);
    }
    level.tasks.clear();
    level.tasks.reserve(static_cast<std::size_t>(count_strips(level, 0, level.size.height) * level.block_columns));
    // As much as the widest part could need, so that another mask needs no more.
    const Want most{true, is_full(level) || carry_ == Carry::kImage};
    const std::int64_t width = level.size.width;
    reserve_all(std::max(window_floats(index, std::min(kWindowColumns + 2 * halo_, width), level.used_rows, most),
                         add_floats(index, std::min(kAddedColumns, width), most)));
    if (carry_ == Carry::kCorrection) level.solved.assign(level.varies.size(), all ? 1 : 0);
    if (all) level.change.assign(level.varies.size(), std::numeric_limits<float>::max());
    kinds_.resize(static_cast<std::size_t>(level.block_columns));
    const std::int64_t reach = (halo_ + kBlock - 1) / kBlock;
    const std::int64_t strips = count_strips(level, rows_top, rows_bottom);
    for (std::int64_t strip = 0; strip < strips; ++strip) {
      const std::int64_t top = strip_top(level, rows_top, rows_bottom, strip);
      const std::int64_t bottom = strip_top(level, rows_top, rows_bottom, strip + 1);
      std::fill(kinds_.begin(), kinds_.end(), all ? Kind::kSolve : is_full(level) ? Kind::kCopy : Kind::kAdd);
      if (!all) {
        const std::int64_t first = std::max<std::int64_t>(top - halo_, 0) / kBlock;
        const std::int64_t last = std::min(bottom + halo_, level.size.height);
        for (std::int64_t j = 0; j < level.block_columns; ++j) {
          for (std::int64_t i = first; i * kBlock < last; ++i) {
            const auto at = static_cast<std::size_t>(i * level.block_columns + j);
            if (level.active[at] != 0) {
              const auto begin = kinds_.begin() + std::max<std::int64_t>(j - reach, 0);
              std::fill(begin, kinds_.begin() + std::min(j + reach + 1, level.block_columns), Kind::kSolve);
              break;
            }
            const bool within = i * kBlock < bottom && (i + 1) * kBlock > top;
            Kind& kind = kinds_[static_cast<std::size_t>(j)];
            if (kind == Kind::kCopy && within && (level.change[at] > unseen || inside_block(i, j))) kind = Kind::kAdd;
          }
        }
      }
      for (std::int64_t j = 0; !all && j < level.block_columns; ++j) {
        if (kinds_[static_cast<std::size_t>(j)] != Kind::kSolve) continue;
        for (std::int64_t i = top / kBlock; i * kBlock < bottom; ++i) {
          level.solved[static_cast<std::size_t>(i * level.block_columns + j)] = 1;
        }
      }
      for (std::int64_t begin = 0; begin < level.block_columns;) {
        std::int64_t end = begin + 1;
        const Kind kind = kinds_[static_cast<std::size_t>(begin)];
        while (end < level.block_columns && kinds_[static_cast<std::size_t>(end)] == kind) ++end;
        const std::int64_t widest = (kind == Kind::kSolve ? kWindowColumns : kAddedColumns) / kBlock;
        const std::int64_t parts = (end - begin + widest - 1) / widest;
        for (std::int64_t i = 0; i < parts; ++i) {
          const std::int64_t left = begin + (end - begin) * i / parts;
          const std::int64_t right = begin + (end - begin) * (i + 1) / parts;
          level.tasks.push_back({kind, {top, left * kBlock, bottom, std::min(right * kBlock, level.size.width)}});
        }
        begin = end;
      }
    }
  }

  [[nodiscard]] bool inside_block(std::int64_t i, std::int64_t j) const {
    return full_.inside().any(i * kBlock, j * kBlock, kBlock, kBlock);
  }

  // -------------------------------------------------------------------------------------------------------- solution

  // Makes one part of a level; `write(rows, stride, y, x, count)` takes its rows.
  template <typename Write>
  void run(std::size_t index, const Task& task, Scratch& scratch, Write write) {
    task.kind == Kind::kSolve ? solve_window(index, task.part, scratch, write) : add(index, task.part, scratch, write);
  }

  // composite + e at full size, e alone on the others.
  template <typename Write>
  void add(std::size_t index, const Rectangle& part, Scratch& scratch, Write write) {
    const bool full = is_full(levels_[index]);
    const bool inside = full && full_.inside().any(part.top, part.left, part.bottom - part.top, part.right - part.left);
    const Want want{inside, full};
    const std::int64_t count = part.right - part.left;
    const std::int64_t pitch = round_up(count, kPad) + kPad;
    scratch.reserve(add_floats(index, count, want));
    const Rows carried{scratch.take(channels_ * pitch), pitch};
    const Rows planes{scratch.take((2 * channels_ + 1) * pitch), pitch};
    float* columns = scratch.take(pitch);
    ImageRows images(*this, index, part.left, count, want, false, scratch);
    const float* mask = planes.channel(channels_);
    const Rows target{planes.channel(inside ? channels_ + 1 : 0), pitch};
    for (std::int64_t y = part.top; y < part.bottom; ++y) {
      read_carried(index, y, part.left, count, columns, carried);
      if (full) images.read(y, planes);
      for (std::int64_t c = 0; full && c < channels_; ++c) {
        float* e = carried.channel(c);
        const float* t = target.channel(c);
        const float* d = planes.channel(c);
        if (inside) {
          GPGAN_INDEPENDENT_LOOP
          for (std::int64_t i = 0; i < count; ++i) e[i] += t[i] + mask[i] * d[i];
        } else {
          GPGAN_INDEPENDENT_LOOP
          for (std::int64_t i = 0; i < count; ++i) e[i] += t[i];
        }
      }
      write(carried.data, pitch, y, part.left, count);
    }
  }

  [[nodiscard]] std::int64_t window_floats(std::size_t index, std::int64_t columns, std::int64_t used,
                                           Want want) const {
    const Level& level = levels_[index];
    const std::int64_t padded = round_up(columns, kBatch);
    const std::int64_t pitch = padded + 2 * kPad;
    // Held of four rows: difference, mask, target; value, colour, residual, excess.
    const std::int64_t slot = (6 * channels_ + 1) * pitch;
    return channels_ * (level.solver->rows() + used) * padded + 4 * slot + 2 * pitch +
           level.solver->scratch_floats(columns) + ImageRows::floats(*this, index, columns, want, false);
  }

  [[nodiscard]] std::int64_t add_floats(std::size_t index, std::int64_t count, Want want) const {
    const std::int64_t pitch = round_up(count, kPad) + kPad;
    return (3 * channels_ + 2) * pitch + ImageRows::floats(*this, index, count, want, false);
  }

  template <typename Write>
  void solve_window(std::size_t index, const Rectangle& part, Scratch& scratch, Write write) {
    const Level& level = levels_[index];
    const bool image = carry_ == Carry::kImage;
    const bool full = is_full(level);
    const std::int64_t rows = level.solver->rows();
    const std::int64_t top = window_top(level, part.top);
    const std::int64_t left = std::max<std::int64_t>(part.left - halo_, 0);
    const std::int64_t columns = std::min(part.right + halo_, level.size.width) - left;
    const std::int64_t padded = round_up(columns, kBatch);
    const std::int64_t pitch = padded + 2 * kPad;
    const std::int64_t used = part.bottom - part.top;
    const bool seam = varies_within(level, {top, left, top + rows, left + columns});
    const bool images = seam || full || image;

    const std::int64_t slot = (6 * channels_ + 1) * pitch;  // as in window_floats()
    const Want want{images, full || image};
    scratch.reserve(window_floats(index, columns, used, want));
    float* chunks = scratch.take(channels_ * rows * padded);
    float* base = scratch.take(channels_ * used * padded);
    float* ring = scratch.take(4 * slot) + kPad;
    float* line = scratch.take(pitch);
    float* spare = scratch.take(pitch);
    float* solver_scratch = scratch.take(level.solver->scratch_floats(columns));
    ImageRows image_rows(*this, index, left, columns, want, false, scratch);

    const auto held = [&](std::int64_t y, std::int64_t plane) {
      return Rows{ring + y % 4 * slot + plane * pitch, pitch};
    };
    const auto difference = [&](std::int64_t y) { return held(y, 0); };
    const auto mask = [&](std::int64_t y) { return held(y, channels_).data; };
    const auto value = [&](std::int64_t y) { return held(y, 2 * channels_ + 1); };  // e, or the composite
    const auto color = [&](std::int64_t y) { return held(y, 3 * channels_ + 1); };  // c, for images
    const auto residual = [&](std::int64_t y) { return held(y, 4 * channels_ + 1); };
    const auto excess = [&](std::int64_t y) { return held(y, 5 * channels_ + 1); };  // c - G composite, for images
    const auto above = [&](std::int64_t y) { return std::max<std::int64_t>(y - 1, 0); };
    const auto below = [&](std::int64_t y) { return std::min(y + 1, rows - 1); };

    for (std::int64_t y = 0; y < rows + 2; ++y) {
      if (y < rows) {
        const Rows d = difference(y);
        const Rows v = value(y);
        float* m = mask(y);
        if (images) {
          image_rows.read(top + y, d);
          pad(m, columns);
          for (std::int64_t c = 0; c < channels_; ++c) pad(d.channel(c), columns);
        }
        read_carried(index, top + y, left, columns, spare, image ? color(y) : v);
        const Rows target = held(y, channels_ + 1);
        const std::int64_t use = top + y - part.top;
        for (std::int64_t c = 0; c < channels_; ++c) {
          float* to = v.channel(c);
          const float* t = target.channel(c);
          const float* dc = d.channel(c);
          if (image) {
            GPGAN_INDEPENDENT_LOOP
            for (std::int64_t x = 0; x < columns; ++x) to[x] = t[x] + m[x] * dc[x];
          }
          pad(to, columns);
          if (use < 0 || use >= used) continue;
          float* keep = base + (c * used + use) * padded;
          if (!image && full) {
            GPGAN_INDEPENDENT_LOOP
            for (std::int64_t x = 0; x < columns; ++x) keep[x] = to[x] + (t[x] + m[x] * dc[x]);
          } else {
            std::copy_n(to, columns, keep);
          }
        }
      }
      if (const std::int64_t t = y - 1; t >= 0 && t < rows) {
        for (std::int64_t c = 0; c < channels_; ++c) {
          float* r = residual(t).channel(c);
          if (seam) {
            residual_row(difference(above(t)).channel(c), difference(t).channel(c), difference(below(t)).channel(c),
                         mask(above(t)), mask(t), mask(below(t)), columns, r);
          } else {
            std::fill_n(r, columns, 0.0F);
          }
          const float* up = value(above(t)).channel(c);
          const float* here = value(t).channel(c);
          const float* down = value(below(t)).channel(c);
          if (image) {
            float* q = excess(t).channel(c);
            blur_row(up, here, down, columns, line + kPad, q);
            const float* target_color = color(t).channel(c);
            for (std::int64_t x = 0; x < columns; ++x) q[x] = target_color[x] - q[x];
            pad(q, columns);
          } else {
            GPGAN_INDEPENDENT_LOOP
            for (std::int64_t x = 0; x < columns; ++x) {
              r[x] -= (here[x] - up[x]) + (here[x] - down[x]) + (here[x] - here[x - 1]) + (here[x] - here[x + 1]);
            }
          }
          pad(r, columns);
        }
      }
      if (const std::int64_t t = y - 2; t >= 0 && t < rows) {
        for (std::int64_t c = 0; c < channels_; ++c) {
          const float* up = residual(above(t)).channel(c);
          const float* here = residual(t).channel(c);
          const float* down = residual(below(t)).channel(c);
          float* out = line;
          if (image) {
            blur_row(excess(above(t)).channel(c), excess(t).channel(c), excess(below(t)).channel(c), columns,
                     spare + kPad, out);
          }
          const float weight = image ? color_weight_ : 0;
          GPGAN_INDEPENDENT_LOOP
          for (std::int64_t x = 0; x < columns; ++x) {
            const float laplacian =
                (here[x] - up[x]) + (here[x] - down[x]) + (here[x] - here[x - 1]) + (here[x] - here[x + 1]);
            out[x] = image ? laplacian + weight * out[x] : laplacian;
          }
          std::fill(out + columns, out + padded, 0.0F);
          float* to = chunks + (c * padded * rows) + t * kBatch;
          for (std::int64_t x = 0; x < padded; x += kBatch) std::copy_n(out + x, kBatch, to + x * rows);
        }
      }
    }

    for (std::int64_t c = 0; c < channels_; ++c) {
      level.solver->solve(chunks + c * padded * rows, columns, solver_scratch);
    }
    for (std::int64_t y = part.top; y < part.bottom; ++y) {
      for (std::int64_t c = 0; c < channels_; ++c) {
        float* to = base + (c * used + y - part.top) * padded;
        const float* from = chunks + c * padded * rows + (y - top) * kBatch;
        for (std::int64_t x = 0; x < padded; x += kBatch) {
          for (std::int64_t i = 0; i < kBatch; ++i) to[x + i] += from[x * rows + i];
        }
      }
      write(base + (y - part.top) * padded + part.left - left, used * padded, y, part.left, part.right - part.left);
    }
  }

  [[nodiscard]] bool varies_within(const Level& level, const Rectangle& where) const {
    for (std::int64_t i = where.top / kBlock; i * kBlock < where.bottom; ++i) {
      for (std::int64_t j = where.left / kBlock; j * kBlock < where.right; ++j) {
        if (level.varies[static_cast<std::size_t>(i * level.block_columns + j)] != 0) return true;
      }
    }
    return false;
  }

  // r = u - L composite, as guidance_residual() has it.
  static void residual_row(const float* d_up, const float* d, const float* d_down, const float* m_up, const float* m,
                           const float* m_down, std::int64_t columns, float* out) {
    GPGAN_INDEPENDENT_LOOP
    for (std::int64_t x = 0; x < columns; ++x) {
      const float vertical = (m_up[x] - m[x]) * (d_up[x] + d[x]) + (m_down[x] - m[x]) * (d_down[x] + d[x]);
      const float horizontal = (m[x - 1] - m[x]) * (d[x - 1] + d[x]) + (m[x + 1] - m[x]) * (d[x + 1] + d[x]);
      out[x] = 0.5F * (vertical + horizontal);
    }
  }

  // The 3-tap Gaussian of both axes; `line` is scratch with room before and after it.
  void blur_row(const float* up, const float* here, const float* down, std::int64_t columns, float* line,
                float* out) const {
    const auto side = static_cast<float>(local_.side_tap);
    const float centre = 1 - 2 * side;
    GPGAN_INDEPENDENT_LOOP
    for (std::int64_t x = -1; x <= columns; ++x) line[x] = centre * here[x] + side * (up[x] + down[x]);
    GPGAN_INDEPENDENT_LOOP
    for (std::int64_t x = 0; x < columns; ++x) out[x] = centre * line[x] + side * (line[x - 1] + line[x + 1]);
  }

  std::int64_t channels_;
  Carry carry_;
  int threads_;
  float color_weight_;
  LocalOperator local_;
  std::int64_t halo_;
  FullSize full_;
  std::vector<Level> levels_;
  Resampling to_start_;
  std::vector<float> start_;  // what the coarsest level starts from, at its size
  std::vector<Kind> kinds_;
  std::vector<Rectangle> reductions_;
  BitPlane outside_;
  std::vector<Scratch> workers_;
};

}  // namespace

std::unique_ptr<core::Pyramid> make_strip_pyramid(const Options& options, const std::vector<Size>& sizes,
                                                  std::int64_t channels, int threads) {
  // The image's own few pixels are no place for windows.
  constexpr std::int64_t kSmallest = 8;
  const Size smallest = sizes.front();
  if (options.pyramid != Pyramid::kAspect || std::min(smallest.height, smallest.width) < kSmallest ||
      !LocalOperator::applies(options.equation, options.color_weight, options.sigma)) {
    return nullptr;
  }
  return std::make_unique<StripPyramid>(options, sizes, channels, threads);
}

}  // namespace GPGAN_CPU_NAMESPACE
}  // namespace gpgan::cpu

#include "cpu/target_end.hpp"
