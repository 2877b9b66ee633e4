// Blends JPEG or PNG files with a generator's TorchScript file, such as `gpgan export` writes:
//   blend GENERATOR.pt SOURCE TARGET MASK OUT.png
#include <ATen/Parallel.h>
#include <torch/script.h>

#include <exception>
#include <iostream>
#include <regex>
#include <stdexcept>
#include <string>
#include <vector>

#include "gpgan/blend.hpp"
#include "images.hpp"

namespace {

// S, out of the JSON in the file. One number is not worth a JSON library; escaped quotes keep other texts from
// matching.
int image_size(const std::string& metadata) {
  std::smatch found;
  if (!std::regex_search(metadata, found, std::regex(R"re("image_size"\s*:\s*(\d{1,4})\b)re"))) {
    throw std::runtime_error("the generator's file has no gpgan.json with an image_size");
  }
  return std::stoi(found[1]);
}

torch::Tensor tensor(const gpgan::ConstImageView& planes) {
  return torch::from_blob(const_cast<void*>(planes.data), {1, planes.channels, planes.height, planes.width});
}

gpgan::Generator load_generator(const std::string& path, gpgan::Options& options) {
  at::set_num_threads(1);                  // layers of S x S pixels are too small to share
  torch::jit::getProfilingMode() = false;  // profiling would make the first two calls twice as long
  torch::jit::ExtraFilesMap files{{"gpgan.json", ""}};
  torch::jit::Module network = torch::jit::load(path, torch::kCPU, files);
  network.eval();
  options.image_size = image_size(files["gpgan.json"]);
  return [network](const gpgan::GeneratorInputs& in) mutable {
    const c10::InferenceMode inference;
    const torch::Tensor color =
        network.forward({tensor(in.composite), tensor(in.mask), tensor(in.harmonized), tensor(in.source)})
            .toTensor()
            .contiguous();
    return std::vector<float>(color.data_ptr<float>(), color.data_ptr<float>() + color.numel());
  };
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 6) {
    std::cerr << "usage: blend GENERATOR.pt SOURCE TARGET MASK OUT.png\n";
    return 2;
  }
  try {
    const Image source = read(argv[2], 3);
    const Image target = read(argv[3], 3);
    const Image mask = read(argv[4], 1);
    Image out = target;

    gpgan::Options options;
    const gpgan::Generator generator = load_generator(argv[1], options);
    gpgan::Blender blender(options, target.height, target.width, 3);
    blender.blend(source.view(), target.view(), mask.view(), generator, out.view());

    write_png(out, argv[5]);
  } catch (const c10::Error& error) {
    std::cerr << "blend: " << error.what_without_backtrace() << '\n';
    return 2;
  } catch (const std::exception& error) {
    std::cerr << "blend: " << error.what() << '\n';
    return 2;
  }
}
