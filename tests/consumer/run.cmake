# Installs the build in BUILD_DIR, builds the program in SOURCE_DIR against it, runs both programs.

set(prefix "${BUILD_DIR}/consumer/prefix")
set(build "${BUILD_DIR}/consumer/build")
file(REMOVE_RECURSE "${BUILD_DIR}/consumer")
set(flags "")
if(SANITIZE)
  set(flags "-fsanitize=${SANITIZE}")
endif()

execute_process(COMMAND "${CMAKE_COMMAND}" --install "${BUILD_DIR}" --prefix "${prefix}"
                OUTPUT_QUIET COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND "${CMAKE_COMMAND}" -S "${SOURCE_DIR}" -B "${build}" -G "${GENERATOR}"
                        "-DCMAKE_CXX_COMPILER=${CXX}" "-DCMAKE_CXX_FLAGS=${flags}"
                        "-DCMAKE_BUILD_TYPE=Release" "-DCMAKE_PREFIX_PATH=${prefix}"
                COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND "${CMAKE_COMMAND}" --build "${build}" COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND "${build}/consumer" OUTPUT_VARIABLE output COMMAND_ERROR_IS_FATAL ANY)
if(NOT output STREQUAL "1,234,567\n")
  message(FATAL_ERROR "the consumer printed '${output}'")
endif()
execute_process(COMMAND "${prefix}/bin/finetune" --version COMMAND_ERROR_IS_FATAL ANY)
