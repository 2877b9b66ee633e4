# cuFFT as gpgan::cufft: header and library from one place, so that they fit together. In this order: the folder that
# GPGAN_CUFFT_ROOT or CUFFT_ROOT names, a CUDA toolkit, the PyPI packages nvidia-cufft and nvidia-cufft-cu12 of the
# Python in use (they have no file without a version in its name), and where libraries usually are.
include(FindPackageHandleStandardArgs)

if(NOT GPGAN_CUFFT_INCLUDE_DIR OR NOT GPGAN_CUFFT_LIBRARY)
  file(GLOB roots /usr/local/cuda-*)
  list(SORT roots COMPARE NATURAL ORDER DESCENDING)
  list(PREPEND roots ${GPGAN_CUFFT_ROOT} ${CUFFT_ROOT} $ENV{CUFFT_ROOT} ${CUDAToolkit_ROOT} $ENV{CUDAToolkit_ROOT}
    ${GPGAN_CUDA_TOOLKIT} $ENV{CUDA_HOME} $ENV{CUDA_PATH} /usr/local/cuda)

  find_program(GPGAN_CUFFT_PYTHON NAMES python3 python HINTS ENV VIRTUAL_ENV PATH_SUFFIXES bin)
  mark_as_advanced(GPGAN_CUFFT_PYTHON)
  set(python ${Python_EXECUTABLE} ${GPGAN_CUFFT_PYTHON})
  if(python)
    list(GET python 0 python)
    execute_process(COMMAND ${python} -c "
import importlib.util, os
spec = importlib.util.find_spec('nvidia')
folders = [os.path.join(path, name) for path in (spec.submodule_search_locations or [] if spec else [])
           for name in ('cu13', 'cufft')]
print(*filter(os.path.isdir, folders), sep=';', end='')"
      OUTPUT_VARIABLE folders ERROR_QUIET)
    list(APPEND roots ${folders})
  endif()

  # The last turn has no root and searches the default paths.
  foreach(root IN LISTS roots ITEMS "")
    set(where NO_DEFAULT_PATH)
    if(root STREQUAL "")
      set(where)
    endif()
    unset(GPGAN_CUFFT_INCLUDE_DIR CACHE)
    unset(GPGAN_CUFFT_LIBRARY CACHE)
    find_path(GPGAN_CUFFT_INCLUDE_DIR cufft.h HINTS "${root}" ${where}
      PATH_SUFFIXES include targets/x86_64-linux/include targets/sbsa-linux/include)
    find_library(GPGAN_CUFFT_LIBRARY NAMES cufft libcufft.so.12 libcufft.so.11 HINTS "${root}" ${where}
      PATH_SUFFIXES lib lib64 targets/x86_64-linux/lib targets/sbsa-linux/lib)
    if(GPGAN_CUFFT_INCLUDE_DIR AND GPGAN_CUFFT_LIBRARY)
      break()
    endif()
  endforeach()
endif()
mark_as_advanced(GPGAN_CUFFT_INCLUDE_DIR GPGAN_CUFFT_LIBRARY)

find_package_handle_standard_args(GpganCufft REQUIRED_VARS GPGAN_CUFFT_LIBRARY GPGAN_CUFFT_INCLUDE_DIR)
if(GpganCufft_FOUND AND NOT TARGET gpgan::cufft)
  # Told that it is a shared one, CMake finds it for the linker where only libgpgan_cuda.so needs it.
  if(GPGAN_CUFFT_LIBRARY MATCHES "\\.so")
    add_library(gpgan::cufft SHARED IMPORTED)
  else()
    add_library(gpgan::cufft UNKNOWN IMPORTED)
  endif()
  set_target_properties(gpgan::cufft PROPERTIES
    IMPORTED_LOCATION "${GPGAN_CUFFT_LIBRARY}"
    INTERFACE_INCLUDE_DIRECTORIES "${GPGAN_CUFFT_INCLUDE_DIR}")
endif()
