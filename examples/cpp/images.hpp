// 8-bit image files for the examples: reads JPEG and PNG, writes PNG. Alpha, EXIF and colour profiles are ignored.
#pragma once

#include <png.h>

#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include <jpeglib.h>  // wants <cstdio> before it

#include "gpgan/image.hpp"

struct Image {
  std::int64_t height = 0, width = 0, channels = 0;
  std::vector<std::uint8_t> pixels;  // interleaved

  void resize(std::int64_t new_height, std::int64_t new_width, int new_channels) {
    height = new_height;
    width = new_width;
    channels = new_channels;
    pixels.assign(static_cast<std::size_t>(height * width * channels), 0);
  }
  auto view() const { return gpgan::interleaved(pixels.data(), height, width, channels); }
  auto view() { return gpgan::interleaved(pixels.data(), height, width, channels); }
};

struct JpegErrors : jpeg_error_mgr {
  std::jmp_buf jump;
  char message[JMSG_LENGTH_MAX];
};

// False, and a message in `errors`, if the file is no sound JPEG. libjpeg leaves this function by longjmp: it must hold
// no objects with destructors.
inline bool decode_jpeg(std::FILE* file, int channels, Image& image, JpegErrors& errors) {
  jpeg_decompress_struct jpeg = {};
  jpeg.err = jpeg_std_error(&errors);
  errors.error_exit = [](j_common_ptr failed) {
    auto& own = static_cast<JpegErrors&>(*failed->err);
    own.format_message(failed, own.message);
    std::longjmp(own.jump, 1);
  };
  errors.emit_message = [](j_common_ptr warned, int level) {
    if (level < 0) warned->err->error_exit(warned);  // damaged data: not what anybody wants to blend
  };
  if (setjmp(errors.jump) != 0) {
    jpeg_destroy_decompress(&jpeg);
    return false;
  }
  jpeg_create_decompress(&jpeg);
  jpeg_stdio_src(&jpeg, file);
  jpeg_read_header(&jpeg, TRUE);
  jpeg.out_color_space = channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
  jpeg_start_decompress(&jpeg);
  image.resize(jpeg.output_height, jpeg.output_width, channels);
  while (jpeg.output_scanline < jpeg.output_height) {
    JSAMPROW row = image.pixels.data() + jpeg.output_scanline * image.width * image.channels;
    jpeg_read_scanlines(&jpeg, &row, 1);
  }
  jpeg_finish_decompress(&jpeg);
  jpeg_destroy_decompress(&jpeg);
  return true;
}

// A JPEG or PNG file as RGB (3 channels) or grey (1).
inline Image read(const std::string& path, int channels) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"), std::fclose);
  if (!file) throw std::runtime_error(path + ": cannot read");
  Image image;
  const int first = std::fgetc(file.get());
  std::rewind(file.get());
  if (first == 0xFF) {
    JpegErrors errors;
    if (!decode_jpeg(file.get(), channels, image, errors)) throw std::runtime_error(path + ": " + errors.message);
    return image;
  }
  png_image png = {};
  png.version = PNG_IMAGE_VERSION;
  if (png_image_begin_read_from_stdio(&png, file.get()) != 0) {
    png.flags |= PNG_IMAGE_FLAG_16BIT_sRGB;  // 16 bits a channel too are sRGB where the file does not say
    png.format = channels == 1 ? PNG_FORMAT_GRAY : PNG_FORMAT_RGB;
    image.resize(png.height, png.width, channels);
    png_image_finish_read(&png, nullptr, image.pixels.data(), 0, nullptr);
  }
  if (PNG_IMAGE_FAILED(png)) throw std::runtime_error(path + ": no sound JPEG or PNG: " + png.message);
  return image;
}

inline void write_png(const Image& image, const std::string& path) {
  png_image png = {};
  png.version = PNG_IMAGE_VERSION;
  png.width = static_cast<png_uint_32>(image.width);
  png.height = static_cast<png_uint_32>(image.height);
  png.format = image.channels == 1 ? PNG_FORMAT_GRAY : PNG_FORMAT_RGB;
  if (png_image_write_to_file(&png, path.c_str(), 0, image.pixels.data(), 0, nullptr) == 0) {
    throw std::runtime_error(path + ": " + png.message);
  }
}
