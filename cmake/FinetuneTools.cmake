# Compiler options, and the tools that make builds faster where the machine has them.

find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  # The precompiled header is found by content, not by the time it was made.
  set(CMAKE_CXX_COMPILER_LAUNCHER "${CMAKE_COMMAND}" -E env
      CCACHE_SLOPPINESS=pch_defines,time_macros "${CCACHE_PROGRAM}")
endif()

find_program(MOLD_PROGRAM mold)
if(MOLD_PROGRAM)
  add_link_options(-fuse-ld=mold)
endif()

if(FINETUNE_FUZZ)
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()
if(FINETUNE_SANITIZE)
  add_compile_options(-fsanitize=${FINETUNE_SANITIZE} -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${FINETUNE_SANITIZE})
endif()

# Options of our own files only.
function(finetune_compile_options target)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
    # GCC 12 finds faults in its own std::string (its bug 105651).
    target_compile_options(${target} PRIVATE -Wno-stringop-overflow -Wno-stringop-overread)
  endif()
  if(FINETUNE_WARNINGS)
    target_compile_options(${target} PRIVATE -Wall -Wextra -Wshadow)
  endif()
  if(FINETUNE_PCH)
    target_compile_options(${target} PRIVATE -fpch-preprocess)
  endif()
endfunction()
