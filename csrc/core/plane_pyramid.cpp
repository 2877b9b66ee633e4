#include <utility>

#include "core/pyramid.hpp"

namespace gpgan::core {
namespace {

constexpr double kSquareSigma = 1.0;  // the released program's smoothing between the levels of its pyramid

ConstImageView channels_of(ConstImageView view, std::int64_t first, std::int64_t count) {
  view.data = static_cast<const std::byte*>(view.data) + first * view.strides[2];
  view.channels = count;
  return view;
}

class PlanePyramid final : public Pyramid {
 public:
  PlanePyramid(Backend& backend, const Options& options, const std::vector<Size>& sizes, std::int64_t channels)
      : backend_(backend), options_(options), channels_(channels) {
    const std::int64_t planes = options.batch * channels;
    for (const Size& size : sizes) {
      Level level;
      level.difference = backend_.allocate(planes, size);
      level.mask = backend_.allocate(options.batch, size);
      level.carried = backend_.allocate(planes, size);
      // The coarser levels' target is there only for those who composite with it.
      if (options.carry == Carry::kImage || &size == &sizes.back()) level.target = backend_.allocate(planes, size);
      level.solver = backend_.make_solver(size, planes, options.equation, options.color_weight, options.sigma);
      levels_.push_back(std::move(level));
    }
    alpha_ = backend_.allocate(options.batch, sizes.back());
  }

  bool load(const Inputs& inputs) override {
    const Level& full = levels_.back();
    const Size size = full.size();
    const Planes& mask = full.mask;
    backend_.load(inputs.target, "target", {}, full.target);
    backend_.load(channels_of(inputs.source, 0, channels_), "source", inputs.offset, full.difference);

    const Offset offset = inputs.offset;
    const Size frame{inputs.source.height, inputs.source.width};
    const bool covers = offset.top <= 0 && offset.left <= 0 && offset.top + frame.height >= size.height &&
                        offset.left + frame.width >= size.width;
    if (inputs.mask.empty()) {
      backend_.frame(frame, offset, mask);
    } else {
      backend_.load_mask(inputs.mask, "mask", offset, mask);
    }
    if (inputs.has_alpha || !covers) {
      if (inputs.has_alpha) {
        backend_.load(channels_of(inputs.source, channels_, 1), "source", offset, alpha_);
        backend_.multiply(mask, alpha_);
      } else {
        backend_.frame(frame, offset, alpha_);
      }
      backend_.extend(full.difference, alpha_);
    }
    backend_.inset(mask, inputs.inset);
    target_view_ = inputs.target;
    has_difference_ = false;
    return backend_.any(mask);
  }

  void averages(const Planes& target, const Planes& source, const Planes& mask) override {
    backend_.area_average(levels_.back().target, target);
    backend_.area_average(levels_.back().difference, source);
    backend_.area_average(levels_.back().mask, mask);
  }

  void add_membrane(const Planes& difference) override {
    make_difference();
    backend_.membrane(levels_.back().difference, levels_.back().mask);
    backend_.area_average(levels_.back().difference, difference);
  }

  void reduce(std::size_t level) override {
    make_difference();
    Level& fine = levels_[level + 1];
    Level& coarse = levels_[level];
    reduce(fine, fine.difference, coarse.difference);
    if (options_.carry == Carry::kImage) reduce(fine, fine.target, coarse.target);
    if (options_.pyramid == gpgan::Pyramid::kAspect) {
      backend_.downsample(fine.mask, coarse.mask);
    } else {
      backend_.resample_nearest(levels_.back().mask, coarse.mask);
    }
  }

  void start(const Planes& carried) override { backend_.resize(carried, levels_.front().carried); }

  void solve(std::size_t level) override { solve(level, nullptr); }

  void finish(const ImageView& out) override {
    const Destination destination{target_view_, out};
    solve(levels_.size() - 1, &destination);
  }

 private:
  struct Level {
    Buffer difference, target, mask, carried;
    std::unique_ptr<Solver> solver;
    [[nodiscard]] Size size() const { return carried.planes().size; }
  };

  void solve(std::size_t level, const Destination* destination) {
    make_difference();
    const Level& fine = levels_[level];
    Planes below;
    if (level > 0 && options_.pyramid == gpgan::Pyramid::kAspect) {
      below = levels_[level - 1].carried;
    } else if (level > 0) {
      backend_.resample_bicubic(levels_[level - 1].carried, fine.carried);
    }
    fine.solver->solve_level({fine.difference, fine.target, fine.mask}, options_.carry, below, fine.carried,
                             destination);
  }

  // The full size's difference holds the source until the averages have been taken.
  void make_difference() {
    if (has_difference_) return;
    backend_.subtract(levels_.back().difference, levels_.back().target);
    has_difference_ = true;
  }

  void reduce(const Level& fine, const Planes& image, const Planes& out) {
    if (options_.pyramid == gpgan::Pyramid::kAspect) {
      backend_.downsample(image, out);
    } else {
      backend_.gaussian_blur(image, kSquareSigma, fine.carried);  // free until this level is solved
      backend_.resample_bicubic(fine.carried, out);
    }
  }

  Backend& backend_;
  Options options_;
  std::int64_t channels_;
  std::vector<Level> levels_;  // coarsest first
  Buffer alpha_;
  ConstImageView target_view_;
  bool has_difference_ = false;
};

}  // namespace

std::unique_ptr<Pyramid> make_plane_pyramid(Backend& backend, const Options& options, const std::vector<Size>& sizes,
                                            std::int64_t channels) {
  return std::make_unique<PlanePyramid>(backend, options, sizes, channels);
}

std::unique_ptr<Pyramid> Backend::make_pyramid(const Options& options, const std::vector<Size>& sizes,
                                               std::int64_t channels) {
  return make_plane_pyramid(*this, options, sizes, channels);
}

}  // namespace gpgan::core
