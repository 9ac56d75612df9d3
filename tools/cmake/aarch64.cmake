# Cross-compiles for arm64 with Debian's g++-aarch64-linux-gnu against the libraries of a private sysroot.
# `tools/sysroot` makes one and leaves a link to it at build/sysroot-aarch64; -DOUTBOARD_SYSROOT=DIR names another.

set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)

# CMake reads this file again in projects of its own, for its checks of the compiler.
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES OUTBOARD_SYSROOT)
if(NOT OUTBOARD_SYSROOT)
  set(OUTBOARD_SYSROOT ${CMAKE_CURRENT_LIST_DIR}/../../build/sysroot-aarch64)
endif()
get_filename_component(OUTBOARD_SYSROOT ${OUTBOARD_SYSROOT} ABSOLUTE)
set(OUTBOARD_SYSROOT ${OUTBOARD_SYSROOT} CACHE PATH "Headers and libraries of arm64 Debian")
if(NOT EXISTS ${OUTBOARD_SYSROOT}/usr/include)
  message(FATAL_ERROR "there is no arm64 sysroot at ${OUTBOARD_SYSROOT}; run tools/sysroot, which makes it")
endif()

set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_ASM_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_SYSROOT ${OUTBOARD_SYSROOT})
set(CMAKE_LIBRARY_ARCHITECTURE aarch64-linux-gnu)

# Programs of the host; headers, libraries and packages of the sysroot, and of nowhere else.
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
set(ENV{PKG_CONFIG_DIR} "")
set(ENV{PKG_CONFIG_LIBDIR} ${OUTBOARD_SYSROOT}/usr/lib/aarch64-linux-gnu/pkgconfig:${OUTBOARD_SYSROOT}/usr/share/pkgconfig)
set(ENV{PKG_CONFIG_SYSROOT_DIR} ${OUTBOARD_SYSROOT})

# Where a host has qemu-user, `ctest` runs the test programs with it.
find_program(OUTBOARD_QEMU_AARCH64 qemu-aarch64)
if(OUTBOARD_QEMU_AARCH64)
  set(CMAKE_CROSSCOMPILING_EMULATOR ${OUTBOARD_QEMU_AARCH64} -L ${OUTBOARD_SYSROOT})
endif()
