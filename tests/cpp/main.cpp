// Runs a file's tests, or says that this machine cannot run the instruction set that GPGAN_CPU_TARGET asks for.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdio>

#include "gpgan/blend.hpp"

int main(int argc, char** argv) {
  try {
    std::printf("CPU target: %s\n", gpgan::cpu_target().c_str());
  } catch (const gpgan::InvalidArgument& error) {
    std::puts(error.what());
    return 77;  // a test that allows for it is skipped
  }
  return doctest::Context(argc, argv).run();
}
