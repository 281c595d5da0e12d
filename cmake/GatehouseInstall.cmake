# What `cmake --install` puts where, beside the programs (gatehouse_program): the C++ client as a package that
# find_package(gatehouse) finds, with the messages and stubs, and the .proto files for other languages.
include(CMakePackageConfigHelpers)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/gatehouse)
set(header_dir ${CMAKE_INSTALL_INCLUDEDIR}/gatehouse)

set_target_properties(gatehouse_client PROPERTIES EXPORT_NAME client)
set_target_properties(gatehouse_proto PROPERTIES EXPORT_NAME proto)
set_target_properties(gatehouse_health_proto PROPERTIES EXPORT_NAME health_proto)
target_compile_features(gatehouse_client PUBLIC cxx_std_20)
install(TARGETS gatehouse_client gatehouse_proto gatehouse_health_proto EXPORT gatehouseTargets
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
  INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT gatehouseTargets NAMESPACE gatehouse:: DESTINATION ${package_dir})

# Ours include one another from the root of the repository ("client/..."), others from that of the package
# ("gatehouse/client/..."), where a name as plain as client/ belongs to them.
foreach(header admin_client.h client_options.h gatehouse_client.h rpc_error.h)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/client/${header})
  file(READ ${PROJECT_SOURCE_DIR}/client/${header} text)
  string(REPLACE "#include \"client/" "#include \"gatehouse/client/" text "${text}")
  file(WRITE ${PROJECT_BINARY_DIR}/public/client/${header} "${text}")
  install(FILES ${PROJECT_BINARY_DIR}/public/client/${header} DESTINATION ${header_dir}/client)
endforeach()
foreach(file admin inference)
  install(FILES ${PROJECT_BINARY_DIR}/proto/gatehouse/v1/${file}.pb.h
                ${PROJECT_BINARY_DIR}/proto/gatehouse/v1/${file}.grpc.pb.h DESTINATION ${header_dir}/v1)
endforeach()
install(DIRECTORY ${PROJECT_SOURCE_DIR}/proto/gatehouse ${PROJECT_SOURCE_DIR}/proto/google
  DESTINATION ${CMAKE_INSTALL_DATADIR}/gatehouse/proto FILES_MATCHING PATTERN "*.proto")

configure_package_config_file(cmake/gatehouseConfig.cmake.in ${PROJECT_BINARY_DIR}/gatehouseConfig.cmake
  INSTALL_DESTINATION ${package_dir})
# Before 1.0 a minor version may break.
write_basic_package_version_file(${PROJECT_BINARY_DIR}/gatehouseConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/gatehouseConfig.cmake ${PROJECT_BINARY_DIR}/gatehouseConfigVersion.cmake
  DESTINATION ${package_dir})
