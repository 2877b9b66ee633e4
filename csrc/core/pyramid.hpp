// The images of one blend on every level, from the coarsest, 0, to the full size: what Blender asks of them. Whoever
// implements it may hold all levels in memory (PlanePyramid, over the operations of any backend) or make parts of the
// finest one as they are needed.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/backend.hpp"
#include "gpgan/blend.hpp"

namespace gpgan::core {

// What a caller pastes. An empty mask stands for ones; `has_alpha`: the source has a channel more than the target.
struct Inputs {
  ConstImageView source, target, mask;
  Offset offset;
  bool has_alpha = false;
  int inset = 0;
};

class Pyramid {
 public:
  Pyramid() = default;
  virtual ~Pyramid() = default;
  Pyramid(const Pyramid&) = delete;
  Pyramid& operator=(const Pyramid&) = delete;

  // Takes the images in: values checked, the source placed and extended, the mask made smaller. False if no pixel of it
  // is left. The views must stay valid until finish().
  virtual bool load(const Inputs& inputs) = 0;
  // Area averages, S x S each.
  virtual void averages(const Planes& target, const Planes& source, const Planes& mask) = 0;
  // Adds the membrane to the source, and gives the average of the difference from the target that it then has.
  virtual void add_membrane(const Planes& difference) = 0;

  // Makes a level's images from the next finer level's.
  virtual void reduce(std::size_t level) = 0;
  // What the coarsest level starts from: S x S, the colour or the change to it, as `carry` says.
  virtual void start(const Planes& carried) = 0;
  // Solves any level but the last, from what the one below handed on.
  virtual void solve(std::size_t level) = 0;
  // Solves the last level and stores the image.
  virtual void finish(const ImageView& out) = 0;
};

// Whatever the options: every level in the backend's memory.
std::unique_ptr<Pyramid> make_plane_pyramid(Backend& backend, const Options& options, const std::vector<Size>& sizes,
                                            std::int64_t channels);

}  // namespace gpgan::core
