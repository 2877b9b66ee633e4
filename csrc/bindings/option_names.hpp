// Options come and go as the strings of the Python API; this table is the only place that pairs them.
#pragma once

#include <optional>
#include <string>
#include <utility>

#include "gpgan/blend.hpp"

namespace gpgan::bindings {

template <typename Enum>
struct Names;
template <>
struct Names<Mode> {
  static constexpr const char* kArgument = "mode";
  static constexpr std::pair<const char*, Mode> kAll[] = {
      {"default", Mode::kDefault}, {"paper", Mode::kPaper}, {"released", Mode::kReleased}};
};
template <>
struct Names<Equation> {
  static constexpr const char* kArgument = "equation";
  static constexpr std::pair<const char*, Equation> kAll[] = {{"gaussian-poisson", Equation::kGaussianPoisson},
                                                              {"screened", Equation::kScreened}};
};
template <>
struct Names<Carry> {
  static constexpr const char* kArgument = "carry";
  static constexpr std::pair<const char*, Carry> kAll[] = {{"image", Carry::kImage},
                                                           {"correction", Carry::kCorrection}};
};
template <>
struct Names<Pyramid> {
  static constexpr const char* kArgument = "pyramid";
  static constexpr std::pair<const char*, Pyramid> kAll[] = {{"aspect", Pyramid::kAspect},
                                                             {"square", Pyramid::kSquare}};
};

template <typename Enum>
Enum parse(const std::string& name) {
  std::string expected;
  for (const auto& [text, value] : Names<Enum>::kAll) {
    if (name == text) return value;
    expected += (expected.empty() ? "'" : ", '") + std::string(text) + "'";
  }
  throw InvalidArgument(Names<Enum>::kArgument, "one of " + expected, "'" + name + "'");
}

template <typename Enum>
std::string name_of(Enum wanted) {
  for (const auto& [text, value] : Names<Enum>::kAll) {
    if (value == wanted) return text;
  }
  throw LogicError("option: not one of the enumeration");
}

// What every device's Blender takes.
inline Options make_options(int image_size, double color_weight, double sigma, const std::string& equation,
                            const std::string& carry, const std::string& pyramid, bool membrane,
                            std::optional<int> inset) {
  Options options;
  options.color_weight = color_weight;
  options.sigma = sigma;
  options.equation = parse<Equation>(equation);
  options.carry = parse<Carry>(carry);
  options.pyramid = parse<Pyramid>(pyramid);
  options.membrane = membrane;
  options.inset = inset;
  options.image_size = image_size;
  return options;
}

}  // namespace gpgan::bindings
