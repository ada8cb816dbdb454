# cmake --install: program, library, headers, and the CMake package `finetune`.

include(CMakePackageConfigHelpers)
set(finetune_package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/finetune")

# The program finds LibTorch, and a bundle's libraries, where the build found them.
if(TARGET finetune)
  set_target_properties(finetune PROPERTIES INSTALL_RPATH_USE_LINK_PATH TRUE)
  install(TARGETS finetune RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}")
endif()
install(TARGETS finetune_lib EXPORT finetuneTargets ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}")
install(DIRECTORY include/finetune DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
install(EXPORT finetuneTargets NAMESPACE finetune:: DESTINATION "${finetune_package_dir}")

configure_package_config_file(cmake/finetuneConfig.cmake.in
  "${PROJECT_BINARY_DIR}/finetuneConfig.cmake" INSTALL_DESTINATION "${finetune_package_dir}")
write_basic_package_version_file("${PROJECT_BINARY_DIR}/finetuneConfigVersion.cmake"
  COMPATIBILITY SameMinorVersion)
install(FILES
  "${PROJECT_BINARY_DIR}/finetuneConfig.cmake" "${PROJECT_BINARY_DIR}/finetuneConfigVersion.cmake"
  cmake/FindLibTorch.cmake cmake/FinetuneDependencies.cmake
  DESTINATION "${finetune_package_dir}")
