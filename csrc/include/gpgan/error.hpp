// The exceptions that the library throws. It never prints, aborts or exits.
#pragma once

#include <stdexcept>
#include <string>

namespace gpgan {

// The base of all: catch this to catch everything of ours.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// A caller's argument is wrong. what() reads "<argument>: expected <this>, got <that>".
class InvalidArgument : public Error {
 public:
  InvalidArgument(const std::string& argument, const std::string& expected, const std::string& got)
      : Error(argument + ": expected " + expected + ", got " + got) {}
};

// The calls came in an order that makes no sense, such as finish() before prepare().
class LogicError : public Error {
 public:
  using Error::Error;
};

// A device, its driver or one of its libraries failed, or is not there.
class DeviceError : public Error {
 public:
  using Error::Error;
};

}  // namespace gpgan
