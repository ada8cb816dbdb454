# cmake --install: program, completions, manual page, library, headers, and the CMake package `finetune`.

include(CMakePackageConfigHelpers)
set(finetune_package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/finetune")

# The program finds LibTorch, and a bundle's libraries, where the build found them.
if(TARGET finetune)
  set_target_properties(finetune PROPERTIES INSTALL_RPATH_USE_LINK_PATH TRUE)
  install(TARGETS finetune RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}")
  # The program itself writes these, from the definition of its options.
  function(finetune_install_text folder name)
    install(CODE "
      execute_process(COMMAND \"$<TARGET_FILE:finetune>\" ${ARGN}
        OUTPUT_FILE \"${PROJECT_BINARY_DIR}/installed/${name}\" COMMAND_ERROR_IS_FATAL ANY)
      file(INSTALL \"${PROJECT_BINARY_DIR}/installed/${name}\"
        DESTINATION \"\${CMAKE_INSTALL_PREFIX}/${CMAKE_INSTALL_DATADIR}/${folder}\")")
  endfunction()
  file(MAKE_DIRECTORY "${PROJECT_BINARY_DIR}/installed")
  finetune_install_text(bash-completion/completions finetune completion bash)
  finetune_install_text(zsh/site-functions _finetune completion zsh)
  finetune_install_text(fish/vendor_completions.d finetune.fish completion fish)
  finetune_install_text(man/man1 finetune.1 man)
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
