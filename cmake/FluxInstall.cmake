# What `cmake --install` gives: the programs, and the SDK as a package.
#   find_package(flux CONFIG REQUIRED)   # flux::client, flux::worker
# The SDK alone: cmake --install BUILD --prefix PREFIX --component sdk
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

# proto, proto_grpc and client_rpc are what the static libraries rest on; their headers stay here.
set(flux_sdk_modules proto proto_grpc client_sdk client_rpc client worker)
foreach(module IN LISTS flux_sdk_modules)
  set_target_properties(flux_${module} PROPERTIES EXPORT_NAME ${module})
  install(TARGETS flux_${module} EXPORT flux-targets
          ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}" COMPONENT sdk)
endforeach()
install(DIRECTORY "${PROJECT_SOURCE_DIR}/client/include/flux" "${PROJECT_SOURCE_DIR}/worker/include/flux"
        DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}" COMPONENT sdk FILES_MATCHING PATTERN "*.h")

set(flux_package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/flux")
install(EXPORT flux-targets NAMESPACE flux:: DESTINATION "${flux_package_dir}" COMPONENT sdk)
configure_package_config_file("${PROJECT_SOURCE_DIR}/cmake/flux-config.cmake.in"
                              "${CMAKE_BINARY_DIR}/flux-config.cmake"
                              INSTALL_DESTINATION "${flux_package_dir}")
write_basic_package_version_file("${CMAKE_BINARY_DIR}/flux-config-version.cmake"
                                 COMPATIBILITY SameMinorVersion)
install(FILES "${CMAKE_BINARY_DIR}/flux-config.cmake" "${CMAKE_BINARY_DIR}/flux-config-version.cmake"
        DESTINATION "${flux_package_dir}" COMPONENT sdk)

foreach(program IN ITEMS fluxd fluxctl)
  if(TARGET ${program})
    install(TARGETS ${program} RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}" COMPONENT programs)
  endif()
endforeach()
