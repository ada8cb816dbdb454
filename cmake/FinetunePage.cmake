# src/report/page.html as a source file, so that the program needs no files at run time.

# finetune_write_page(output page)
function(finetune_write_page output page)
  file(READ "${page}" content)
  set(text "#include \"report/page.h\"\n\nnamespace finetune {\n\n")
  string(APPEND text "std::string_view report_page_template() {\n  return R\"page(${content})page\";\n}\n\n}  // namespace finetune\n")
  file(CONFIGURE OUTPUT "${output}" CONTENT "${text}" @ONLY)
endfunction()
