// GP-GAN image blending on CUDA devices: link gpgan::cuda.
//
//   gpgan::Blender blender = gpgan::cuda::make_blender(gpgan::Options{}, height, width, 3, {.stream = stream});
//   gpgan::GeneratorInputs inputs = blender.prepare(source, target, mask);   // views of the device's memory
//   ...                                                                      // the generator, on the same stream
//   blender.finish(colour, out);
//
// All views - images, mask, colour, result and what the generator is given - are of the device's memory. Calls only put
// work on the stream: nothing is allocated, nothing waits and nothing is read back, so that results, and the views'
// memory, belong to the stream until it has come that far. Values out of range, which only the device sees, are taken
// for the nearest that is right, and the next call of the same Blender throws (Blender::synchronize() at once).
#pragma once

#include <cstdint>
#include <string>

#include "gpgan/blend.hpp"

namespace gpgan::cuda {

struct Device {
  int index = -1;  // -1: the calling thread's current one
  // cudaStream_t that the work goes to, to live as long as work is put on it; null: the default one.
  void* stream = nullptr;
};

// Throws InvalidArgument as Blender's constructor does, and DeviceError if there is no such device, or not enough
// memory on it. Options::threads means nothing here.
Blender make_blender(const Options& options, std::int64_t height, std::int64_t width, int channels,
                     const Device& device = {});

// How many devices there are. Throws DeviceError, with the driver's own reason, where it cannot tell.
int device_count();
std::string device_name(int index);

}  // namespace gpgan::cuda
