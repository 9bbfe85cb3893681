/** The daemon's API as its definitions say it: messages and services, under one name. */
export * from "./generated/belljar/api/v1/checkpoint_pb.js";
export * from "./generated/belljar/api/v1/container_pb.js";
export * from "./generated/belljar/api/v1/daemon_pb.js";
export * from "./generated/belljar/api/v1/error_pb.js";
export * from "./generated/belljar/api/v1/files_pb.js";
export * from "./generated/belljar/api/v1/process_pb.js";
export * from "./generated/belljar/api/v1/sandbox_pb.js";
export * from "./generated/belljar/api/v1/stats_pb.js";
export * from "./generated/belljar/api/v1/types_pb.js";
export * from "./generated/belljar/api/v1/volume_pb.js";
