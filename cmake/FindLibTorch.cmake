# Finds LibTorch without its own CMake package, which refuses CUDA builds on machines without the
# CUDA toolkit. Looked up in this order:
#   1. LIBTORCH_DIR (cache): a folder with include/ and lib/
#   2. CMAKE_PREFIX_PATH: a bare libtorch folder, or the site-packages/torch of a Python
#   3. the torch of the active `python3`
#   4. the torch of <source>/.venv
#   5. LIBTORCH_DIR_HINT: where an installed finetune was built against
# A folder whose version is below FINETUNE_LIBTORCH_MINIMUM is passed over.
# Defines LibTorch::LibTorch (include folders, libraries, string ABI, OpenMP), LIBTORCH_DIR,
# LIBTORCH_LIB_DIR, LibTorch_VERSION and LIBTORCH_HAS_CUDA.

set(FINETUNE_LIBTORCH_MINIMUM 2.11)

# Sets `result` to the version of the LibTorch in `folder`, or to "" where there is none.
function(_libtorch_version result folder)
  set(${result} "" PARENT_SCOPE)
  set(header "${folder}/include/torch/headeronly/version.h")
  if(EXISTS "${header}" AND EXISTS "${folder}/lib/libtorch_cpu.so")
    file(STRINGS "${header}" parts REGEX "define TORCH_VERSION_(MAJOR|MINOR|PATCH) +[0-9]+")
    string(REGEX REPLACE "[^;0-9]" "" parts "${parts}")
    list(JOIN parts "." version)
    set(${result} "${version}" PARENT_SCOPE)
  endif()
endfunction()

function(_libtorch_usable result folder)
  _libtorch_version(version "${folder}")
  if(version AND version VERSION_GREATER_EQUAL FINETUNE_LIBTORCH_MINIMUM)
    set(${result} TRUE PARENT_SCOPE)
  else()
    set(${result} FALSE PARENT_SCOPE)
  endif()
endfunction()

# Sets `result` to the torch folder of a Python interpreter, without importing torch (seconds).
function(_libtorch_of_python result python)
  execute_process(
    COMMAND "${python}" -c
            "import importlib.util as u; s = u.find_spec('torch'); print(s.submodule_search_locations[0])"
    OUTPUT_VARIABLE folder OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE status)
  if(status EQUAL 0)
    set(${result} "${folder}" PARENT_SCOPE)
  else()
    set(${result} "" PARENT_SCOPE)
  endif()
endfunction()

function(_libtorch_search result)
  set(prefixes ${CMAKE_PREFIX_PATH})
  if(DEFINED ENV{CMAKE_PREFIX_PATH})
    string(REPLACE ":" ";" from_environment "$ENV{CMAKE_PREFIX_PATH}")
    list(APPEND prefixes ${from_environment})
  endif()
  foreach(prefix IN LISTS prefixes)
    # torch.utils.cmake_prefix_path names torch/share/cmake; take its grandparent too.
    foreach(folder "${prefix}" "${prefix}/libtorch" "${prefix}/torch" "${prefix}/../..")
      _libtorch_usable(usable "${folder}")
      if(usable)
        set(${result} "${folder}" PARENT_SCOPE)
        return()
      endif()
    endforeach()
  endforeach()
  foreach(python python3 "${PROJECT_SOURCE_DIR}/.venv/bin/python3")
    _libtorch_of_python(folder "${python}")
    _libtorch_usable(usable "${folder}")
    if(usable)
      set(${result} "${folder}" PARENT_SCOPE)
      return()
    endif()
  endforeach()
  set(${result} "${LIBTORCH_DIR_HINT}" PARENT_SCOPE)
endfunction()

set(LIBTORCH_DIR "" CACHE PATH "LibTorch folder (with include/ and lib/); empty: search")
_libtorch_usable(_usable "${LIBTORCH_DIR}")
if(NOT _usable)
  _libtorch_search(_found)
  set(LIBTORCH_DIR "${_found}" CACHE PATH "LibTorch folder (with include/ and lib/)" FORCE)
  _libtorch_usable(_usable "${LIBTORCH_DIR}")
endif()
if(NOT _usable)
  if(LibTorch_FIND_REQUIRED)
    message(FATAL_ERROR
      "LibTorch ${FINETUNE_LIBTORCH_MINIMUM} or newer not found in CMAKE_PREFIX_PATH, in the active Python, or in "
      "${PROJECT_SOURCE_DIR}/.venv. Run scripts/setup, or pass -DCMAKE_PREFIX_PATH=<libtorch folder>.")
  endif()
  set(LibTorch_FOUND FALSE)
  return()
endif()
get_filename_component(LIBTORCH_DIR "${LIBTORCH_DIR}" REALPATH)
set(LIBTORCH_LIB_DIR "${LIBTORCH_DIR}/lib")

_libtorch_version(LibTorch_VERSION "${LIBTORCH_DIR}")

# Which std::string do its symbols take? c10::Error's constructor tells, without running anything.
file(STRINGS "${LIBTORCH_LIB_DIR}/libc10.so" _symbols REGEX "3c105ErrorC[12]E.*__cxx11" LIMIT_COUNT 1)
if(_symbols)
  set(_cxx11_abi 1)
else()
  set(_cxx11_abi 0)
endif()

if(NOT TARGET LibTorch::LibTorch)
  add_library(LibTorch::LibTorch INTERFACE IMPORTED)
  target_include_directories(LibTorch::LibTorch SYSTEM INTERFACE
    "${LIBTORCH_DIR}/include" "${LIBTORCH_DIR}/include/torch/csrc/api/include")
  target_compile_definitions(LibTorch::LibTorch INTERFACE _GLIBCXX_USE_CXX11_ABI=${_cxx11_abi})

  # at::parallel_for is parallel only in files compiled with OpenMP; the runtime must be torch's own
  # copy, so that there is one pool of threads in the process.
  # (The build of the readers alone has none: sanitizers do not see what its threads wait for.)
  if(NOT FINETUNE_READERS)
    target_compile_options(LibTorch::LibTorch INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-fopenmp>)
  endif()
  file(GLOB _gomp "${LIBTORCH_LIB_DIR}/libgomp*.so*" "${LIBTORCH_DIR}/../torch.libs/libgomp*.so*")
  if(_gomp)
    list(GET _gomp 0 _gomp)
  else()
    set(_gomp gomp)
  endif()

  target_link_libraries(LibTorch::LibTorch INTERFACE
    "${LIBTORCH_LIB_DIR}/libtorch_cpu.so" "${LIBTORCH_LIB_DIR}/libc10.so" "${_gomp}")
  set(LIBTORCH_HAS_CUDA FALSE)
  if(EXISTS "${LIBTORCH_LIB_DIR}/libtorch_cuda.so")
    # A CUDA wheel without NVIDIA's libraries beside it is a CPU build that takes more room.
    execute_process(COMMAND ldd "${LIBTORCH_LIB_DIR}/libtorch_cuda.so"
                    OUTPUT_VARIABLE _needed ERROR_QUIET)
    if(_needed MATCHES "([^ \t\n]+) => not found")
      message(STATUS "LibTorch: no CUDA, libtorch_cuda.so needs ${CMAKE_MATCH_1}, which is not here")
    else()
      set(LIBTORCH_HAS_CUDA TRUE)
    endif()
  endif()
  if(LIBTORCH_HAS_CUDA)
    # Nothing refers to torch_cuda by name: its kernels register when it is loaded.
    target_link_libraries(LibTorch::LibTorch INTERFACE
      -Wl,--push-state,--no-as-needed "${LIBTORCH_LIB_DIR}/libtorch_cuda.so"
      "${LIBTORCH_LIB_DIR}/libc10_cuda.so" -Wl,--pop-state)
  endif()
  # A CUDA build needs libraries that the machine that links need not have.
  target_link_options(LibTorch::LibTorch INTERFACE
    -Wl,--allow-shlib-undefined "-Wl,-rpath,${LIBTORCH_LIB_DIR}")
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(LibTorch REQUIRED_VARS LIBTORCH_LIB_DIR VERSION_VAR LibTorch_VERSION)
