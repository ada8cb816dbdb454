# The libraries that finetune needs beside the C++ library, each as an imported target
# finetune_deps::<name>. Used by the build and by the installed package alike.
#
# FINETUNE_DEPS=DIR takes all of them but LibTorch from a folder made by scripts/bundle_deps.

set(FINETUNE_DEPS "$ENV{FINETUNE_DEPS}" CACHE PATH "Folder made by scripts/bundle_deps; empty: the system's")
if(FINETUNE_DEPS)
  get_filename_component(FINETUNE_DEPS "${FINETUNE_DEPS}" ABSOLUTE BASE_DIR "${CMAKE_SOURCE_DIR}")
  if(NOT IS_DIRECTORY "${FINETUNE_DEPS}/include")
    message(FATAL_ERROR "FINETUNE_DEPS=${FINETUNE_DEPS} has no include/. Make it with scripts/bundle_deps.")
  endif()
endif()

# finetune_dependency(name DEBIAN package HEADER file [LIBRARIES name...])
# Defines finetune_deps::<name>, and <name>_INCLUDE_DIR in the caller's scope.
function(finetune_dependency name)
  cmake_parse_arguments(arg "" "DEBIAN;HEADER" "LIBRARIES" ${ARGN})
  if(FINETUNE_DEPS)
    set(where PATHS "${FINETUNE_DEPS}/include" NO_DEFAULT_PATH)
  endif()
  set(include_dir "include_dir-NOTFOUND")
  find_path(include_dir "${arg_HEADER}" ${where} NO_CACHE)
  set(missing "")
  if(NOT include_dir)
    set(missing "header ${arg_HEADER}")
  endif()
  set(files "")
  foreach(library IN LISTS arg_LIBRARIES)
    set(file "file-NOTFOUND")
    if(FINETUNE_DEPS)
      # The bundle holds no links: the file has its run-time name, such as libfmt.so.9.
      file(GLOB file "${FINETUNE_DEPS}/lib/lib${library}.so*" "${FINETUNE_DEPS}/lib/lib${library}.a")
      if(file)
        list(GET file 0 file)
      endif()
    else()
      find_library(file "${library}" NO_CACHE)
    endif()
    if(file)
      list(APPEND files "${file}")
    else()
      list(APPEND missing "library ${library}")
    endif()
  endforeach()
  if(missing)
    list(JOIN missing ", " missing)
    if(FINETUNE_DEPS)
      message(FATAL_ERROR "${name}: ${missing} not found in ${FINETUNE_DEPS}. Make it again with scripts/bundle_deps.")
    endif()
    message(FATAL_ERROR "${name}: ${missing} not found. Run scripts/setup, or install ${arg_DEBIAN}.")
  endif()
  if(NOT TARGET finetune_deps::${name})
    add_library(finetune_deps::${name} INTERFACE IMPORTED)
    target_link_libraries(finetune_deps::${name} INTERFACE ${files})
    if(FINETUNE_DEPS)
      # After torch's folders: only fmt has to come first, see below.
      target_include_directories(finetune_deps::${name} SYSTEM INTERFACE "${include_dir}")
    endif()
  endif()
  set(${name}_INCLUDE_DIR "${include_dir}" PARENT_SCOPE)
endfunction()

find_package(Threads REQUIRED)
find_package(LibTorch REQUIRED)

# LibTorch has headers of other libraries, of other versions: never take them from there, even where
# CMAKE_PREFIX_PATH names its folder.
set(_given_prefix_path ${CMAKE_PREFIX_PATH} "$ENV{CMAKE_PREFIX_PATH}" "${LIBTORCH_DIR}")
string(REPLACE ":" ";" _given_prefix_path "${_given_prefix_path}")
foreach(_prefix IN LISTS _given_prefix_path)
  if(EXISTS "${_prefix}/include/ATen")
    list(APPEND CMAKE_IGNORE_PATH "${_prefix}/include" "${_prefix}/lib")
  endif()
endforeach()

finetune_dependency(fmt DEBIAN libfmt-dev HEADER fmt/format.h LIBRARIES fmt)
finetune_dependency(spdlog DEBIAN libspdlog-dev HEADER spdlog/spdlog.h LIBRARIES spdlog)
finetune_dependency(nlohmann_json DEBIAN nlohmann-json3-dev HEADER nlohmann/json.hpp)
finetune_dependency(cli11 DEBIAN libcli11-dev HEADER CLI/CLI.hpp)
finetune_dependency(yaml_cpp DEBIAN libyaml-cpp-dev HEADER yaml-cpp/yaml.h LIBRARIES yaml-cpp)
finetune_dependency(sentencepiece DEBIAN libsentencepiece-dev HEADER sentencepiece_processor.h LIBRARIES sentencepiece)
finetune_dependency(pcre2 DEBIAN libpcre2-dev HEADER pcre2.h LIBRARIES pcre2-8)
finetune_dependency(utf8proc DEBIAN libutf8proc-dev HEADER utf8proc.h LIBRARIES utf8proc)
finetune_dependency(zlib DEBIAN zlib1g-dev HEADER zlib.h LIBRARIES z)
finetune_dependency(xxhash DEBIAN libxxhash-dev HEADER xxhash.h LIBRARIES xxhash)
finetune_dependency(valijson DEBIAN libvalijson-dev HEADER valijson/validator.hpp)
finetune_dependency(edit DEBIAN libedit-dev HEADER histedit.h LIBRARIES edit)

target_compile_definitions(finetune_deps::spdlog INTERFACE
  SPDLOG_COMPILED_LIB SPDLOG_SHARED_LIB SPDLOG_FMT_EXTERNAL)
target_link_libraries(finetune_deps::spdlog INTERFACE finetune_deps::fmt)
target_compile_definitions(finetune_deps::pcre2 INTERFACE PCRE2_CODE_UNIT_WIDTH=8)

# torch ships the headers of a newer fmt than the system's spdlog was compiled with. A folder that
# holds only a link to the system's fmt, in front of torch's, lets both live in one file.
set(_fmt_first "${CMAKE_CURRENT_BINARY_DIR}/fmt_first")
file(MAKE_DIRECTORY "${_fmt_first}")
file(CREATE_LINK "${fmt_INCLUDE_DIR}/fmt" "${_fmt_first}/fmt" SYMBOLIC)
if(NOT TARGET finetune_deps::fmt_first)
  add_library(finetune_deps::fmt_first INTERFACE IMPORTED)
  # -isystem folders are searched after every -I folder, so plain -I puts this one first.
  set_target_properties(finetune_deps::fmt_first PROPERTIES
    IMPORTED_NO_SYSTEM TRUE
    INTERFACE_INCLUDE_DIRECTORIES "${_fmt_first}")
endif()
