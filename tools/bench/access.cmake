# The sub-command `outboard-bench access`: included by this folder's CMakeLists.txt, which makes the
# program. Its guest is for the machine's own CPU, not for this build: none of the project's flags
# (sanitizers, link-time optimisation, position independence) applies to it, so it is built by a plain
# command.

find_package(tl-expected REQUIRED)
find_package(CLI11 REQUIRED)
find_package(fmt REQUIRED)
find_package(nlohmann_json REQUIRED)
pkg_check_modules(liburing REQUIRED IMPORTED_TARGET liburing)

set(guest_folder ${CMAKE_CURRENT_LIST_DIR}/guest)
set(guest ${CMAKE_CURRENT_BINARY_DIR}/access_guest.elf)
file(GLOB guest_headers CONFIGURE_DEPENDS ${guest_folder}/*.h)
set(guest_sources ${guest_folder}/start.S ${guest_folder}/access.c ${guest_folder}/nvme.c)
add_custom_command(OUTPUT ${guest}
  COMMAND ${CMAKE_C_COMPILER} -m64 -O2 -ffreestanding -mgeneral-regs-only -mno-red-zone -fno-pic -fno-pie
    -fno-stack-protector -fcf-protection=none -fno-asynchronous-unwind-tables -std=c11 -Wall -Wextra
    -Werror -nostdlib -static -no-pie -Wl,--build-id=none -Wl,-z,noexecstack
    -Wl,-z,max-page-size=4096 -Wl,-Ttext=0x200000 -o ${guest} ${guest_sources}
  DEPENDS ${guest_sources} ${guest_headers}
  COMMENT "Building the bench's guest" VERBATIM)
set_source_files_properties(${guest_folder}/image.S PROPERTIES OBJECT_DEPENDS ${guest}
  COMPILE_OPTIONS "-DOUTBOARD_BENCH_GUEST=\"${guest}\"")

file(GLOB access_sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/access*.cc
  ${CMAKE_CURRENT_LIST_DIR}/floors*.cc)
add_library(outboard_bench_access STATIC
  ${access_sources} ${guest_folder}/image.S)
target_link_libraries(outboard_bench_access
  PUBLIC outboard_flags outboard_bench outboard_vfio_user outboard_vmm tl::expected
  PRIVATE PkgConfig::liburing CLI11::CLI11 fmt::fmt nlohmann_json::nlohmann_json)
