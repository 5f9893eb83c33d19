#include "pjrt.h"

#include <dlfcn.h>

#include <array>
#include <cstdlib>

namespace diffusion_sampler {
namespace {

std::string Text(const char* text, size_t size) {
  return text == nullptr ? "" : std::string(text, size);
}

PJRT_NamedValue Named(std::string_view name, PJRT_NamedValue_Type type) {
  auto value = MakeArgs<PJRT_NamedValue>(PJRT_NamedValue_STRUCT_SIZE);
  value.name = name.data();
  value.name_size = name.size();
  value.type = type;
  value.value_size = 1;
  return value;
}

}  // namespace

Api Api::Load(const std::filesystem::path& path) {
  // Plugins otherwise fill the terminal with their start-up messages.
  setenv("TF_CPP_MIN_LOG_LEVEL", "3", /*overwrite=*/0);
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    throw Error(ExitCode::kPlugin, "cannot load the plugin " + path.string() + ": " + dlerror());
  }
  using GetPjrtApi = const PJRT_Api*();
  auto* get = reinterpret_cast<GetPjrtApi*>(dlsym(library, "GetPjrtApi"));
  const PJRT_Api* table = get == nullptr ? nullptr : get();
  if (table == nullptr) {
    throw Error(ExitCode::kPlugin, path.string() + " is no PJRT plugin: it has no GetPjrtApi");
  }
  if (table->pjrt_api_version.major_version != PJRT_API_MAJOR) {
    throw Error(ExitCode::kPlugin, "the plugin " + path.string() + " speaks PJRT " +
                                       std::to_string(table->pjrt_api_version.major_version) +
                                       ".x; this program speaks " + std::to_string(PJRT_API_MAJOR) +
                                       ".x");
  }
  Api api(table, path);
  auto args = MakeArgs<PJRT_Plugin_Initialize_Args>(PJRT_Plugin_Initialize_Args_STRUCT_SIZE);
  api.Call(&PJRT_Api::PJRT_Plugin_Initialize, &args, "initialise the plugin");
  return api;
}

std::string Api::Version() const {
  return std::to_string(table_->pjrt_api_version.major_version) + "." +
         std::to_string(table_->pjrt_api_version.minor_version);
}

void Api::Throw(PJRT_Error* error, std::string_view doing) const {
  auto args = MakeArgs<PJRT_Error_Message_Args>(PJRT_Error_Message_Args_STRUCT_SIZE);
  args.error = error;
  table_->PJRT_Error_Message(&args);
  const std::string message = Text(args.message, args.message_size);
  Destroy(error);
  throw Error(ExitCode::kDevice, "cannot " + std::string(doing) + ": " + message);
}

void Api::Destroy(PJRT_Error* error) const noexcept {
  auto args = MakeArgs<PJRT_Error_Destroy_Args>(PJRT_Error_Destroy_Args_STRUCT_SIZE);
  args.error = error;
  table_->PJRT_Error_Destroy(&args);
}

void ReleaseClient(const Api& api, PJRT_Client* client) noexcept {
  auto args = MakeArgs<PJRT_Client_Destroy_Args>(PJRT_Client_Destroy_Args_STRUCT_SIZE);
  args.client = client;
  api.CallQuietly(&PJRT_Api::PJRT_Client_Destroy, &args);
}

void ReleaseBuffer(const Api& api, PJRT_Buffer* buffer) noexcept {
  auto args = MakeArgs<PJRT_Buffer_Destroy_Args>(PJRT_Buffer_Destroy_Args_STRUCT_SIZE);
  args.buffer = buffer;
  api.CallQuietly(&PJRT_Api::PJRT_Buffer_Destroy, &args);
}

void ReleaseExecutable(const Api& api, PJRT_LoadedExecutable* executable) noexcept {
  auto args =
      MakeArgs<PJRT_LoadedExecutable_Destroy_Args>(PJRT_LoadedExecutable_Destroy_Args_STRUCT_SIZE);
  args.executable = executable;
  api.CallQuietly(&PJRT_Api::PJRT_LoadedExecutable_Destroy, &args);
}

void ReleaseEvent(const Api& api, PJRT_Event* event) noexcept {
  auto args = MakeArgs<PJRT_Event_Destroy_Args>(PJRT_Event_Destroy_Args_STRUCT_SIZE);
  args.event = event;
  api.CallQuietly(&PJRT_Api::PJRT_Event_Destroy, &args);
}

void ReleaseProgram(const Api& api, PJRT_Executable* program) noexcept {
  auto args = MakeArgs<PJRT_Executable_Destroy_Args>(PJRT_Executable_Destroy_Args_STRUCT_SIZE);
  args.executable = program;
  api.CallQuietly(&PJRT_Api::PJRT_Executable_Destroy, &args);
}

std::string_view CompileOptions() {
  // A serialized CompileOptionsProto {executable_build_options {device_ordinal: -1, num_replicas:
  // 1, num_partitions: 1}, compile_portable_executable: true}; empty options abort the process.
  static constexpr std::string_view kOptions(
      "\x1a\x0f\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x20\x01\x28\x01\x20\x01", 19);
  return kOptions;
}

OwnedProgram Executable::Inspected() const {
  auto args = MakeArgs<PJRT_LoadedExecutable_GetExecutable_Args>(
      PJRT_LoadedExecutable_GetExecutable_Args_STRUCT_SIZE);
  args.loaded_executable = handle_.get();
  api_->Call(&PJRT_Api::PJRT_LoadedExecutable_GetExecutable, &args, "inspect a program");
  return {*api_, args.executable};
}

size_t Executable::NumOutputs() const {
  const OwnedProgram program = Inspected();
  auto args =
      MakeArgs<PJRT_Executable_NumOutputs_Args>(PJRT_Executable_NumOutputs_Args_STRUCT_SIZE);
  args.executable = program.get();
  api_->Call(&PJRT_Api::PJRT_Executable_NumOutputs, &args, "count a program's results");
  return args.num_outputs;
}

std::string Executable::Serialize() const {
  const OwnedProgram program = Inspected();
  auto args = MakeArgs<PJRT_Executable_Serialize_Args>(PJRT_Executable_Serialize_Args_STRUCT_SIZE);
  args.executable = program.get();
  api_->Call(&PJRT_Api::PJRT_Executable_Serialize, &args, "serialize a program");
  const std::unique_ptr<PJRT_SerializedExecutable, void (*)(PJRT_SerializedExecutable*)> held(
      args.serialized_executable, args.serialized_executable_deleter);
  return Text(args.serialized_bytes, args.serialized_bytes_size);
}

std::vector<Buffer> Executable::Run(const std::vector<PJRT_Buffer*>& inputs, size_t outputs) const {
  auto options = MakeArgs<PJRT_ExecuteOptions>(PJRT_ExecuteOptions_STRUCT_SIZE);
  std::vector<PJRT_Buffer*> results(outputs, nullptr);
  PJRT_Buffer* const* argument_list = inputs.data();
  PJRT_Buffer** output_list = results.data();
  PJRT_Event* done = nullptr;
  auto args =
      MakeArgs<PJRT_LoadedExecutable_Execute_Args>(PJRT_LoadedExecutable_Execute_Args_STRUCT_SIZE);
  args.executable = handle_.get();
  args.options = &options;
  args.argument_lists = &argument_list;
  args.num_devices = 1;
  args.num_args = inputs.size();
  args.output_lists = &output_list;
  args.device_complete_events = &done;
  args.execute_device = device_;
  api_->Call(&PJRT_Api::PJRT_LoadedExecutable_Execute, &args, "run a program");
  std::vector<Buffer> owned;
  owned.reserve(outputs);
  for (PJRT_Buffer* result : results) owned.emplace_back(*api_, result);
  const OwnedEvent event(*api_, done);
  auto await = MakeArgs<PJRT_Event_Await_Args>(PJRT_Event_Await_Args_STRUCT_SIZE);
  await.event = done;
  api_->Call(&PJRT_Api::PJRT_Event_Await, &await, "run a program");
  return owned;
}

Client::Client(Api api, const ClientOptions& options)
    : api_(std::make_unique<Api>(std::move(api))) {
  // A plugin refuses options that it does not know, so each kind gets its own.
  std::vector<PJRT_NamedValue> values;
  const std::string name = api_->path().filename().string();
  if (name.find("cuda") != std::string::npos || name.find("rocm") != std::string::npos) {
    PJRT_NamedValue preallocate = Named("preallocate", PJRT_NamedValue_kBool);
    preallocate.bool_value = options.memory_fraction > 0.0;
    values.push_back(preallocate);
    if (options.memory_fraction > 0.0) {
      PJRT_NamedValue fraction = Named("memory_fraction", PJRT_NamedValue_kFloat);
      fraction.float_value = static_cast<float>(options.memory_fraction);
      values.push_back(fraction);
    }
  }
  if (name.find("cpu") != std::string::npos) {
    // One device that uses all cores, rather than one for each core.
    PJRT_NamedValue count = Named("cpu_device_count", PJRT_NamedValue_kInt64);
    count.int64_value = 1;
    values.push_back(count);
  }
  auto create = MakeArgs<PJRT_Client_Create_Args>(PJRT_Client_Create_Args_STRUCT_SIZE);
  create.create_options = values.data();
  create.num_options = values.size();
  try {
    api_->Call(&PJRT_Api::PJRT_Client_Create, &create, "open a device");
  } catch (const Error& error) {
    throw Error(ExitCode::kPlugin, "the plugin " + api_->path().string() + " " + error.what());
  }
  client_ = OwnedClient(*api_, create.client);

  auto platform =
      MakeArgs<PJRT_Client_PlatformName_Args>(PJRT_Client_PlatformName_Args_STRUCT_SIZE);
  platform.client = create.client;
  api_->Call(&PJRT_Api::PJRT_Client_PlatformName, &platform, "ask the platform's name");
  platform_ = Text(platform.platform_name, platform.platform_name_size);
  auto version =
      MakeArgs<PJRT_Client_PlatformVersion_Args>(PJRT_Client_PlatformVersion_Args_STRUCT_SIZE);
  version.client = create.client;
  api_->Call(&PJRT_Api::PJRT_Client_PlatformVersion, &version, "ask the platform's version");
  platform_version_ = Text(version.platform_version, version.platform_version_size);

  auto devices = MakeArgs<PJRT_Client_AddressableDevices_Args>(
      PJRT_Client_AddressableDevices_Args_STRUCT_SIZE);
  devices.client = create.client;
  api_->Call(&PJRT_Api::PJRT_Client_AddressableDevices, &devices, "list devices");
  devices_.assign(devices.addressable_devices,
                  devices.addressable_devices + devices.num_addressable_devices);
  if (options.device < 0 || static_cast<size_t>(options.device) >= devices_.size()) {
    throw Error(ExitCode::kPlugin, "there is no device " + std::to_string(options.device) +
                                       "; the plugin " + api_->path().string() + " has " +
                                       std::to_string(devices_.size()));
  }
  device_ = devices_[static_cast<size_t>(options.device)];
}

std::vector<DeviceInfo> Client::Devices() const {
  std::vector<DeviceInfo> infos;
  for (PJRT_Device* device : devices_) {
    auto get =
        MakeArgs<PJRT_Device_GetDescription_Args>(PJRT_Device_GetDescription_Args_STRUCT_SIZE);
    get.device = device;
    api_->Call(&PJRT_Api::PJRT_Device_GetDescription, &get, "describe a device");
    auto kind =
        MakeArgs<PJRT_DeviceDescription_Kind_Args>(PJRT_DeviceDescription_Kind_Args_STRUCT_SIZE);
    kind.device_description = get.device_description;
    api_->Call(&PJRT_Api::PJRT_DeviceDescription_Kind, &kind, "describe a device");
    // Optional: CPU plugins do not implement it.
    auto memory = MakeArgs<PJRT_Device_MemoryStats_Args>(PJRT_Device_MemoryStats_Args_STRUCT_SIZE);
    memory.device = device;
    api_->CallQuietly(&PJRT_Api::PJRT_Device_MemoryStats, &memory);
    infos.push_back({static_cast<int>(infos.size()), Text(kind.device_kind, kind.device_kind_size),
                     memory.bytes_limit_is_set ? memory.bytes_limit : 0});
  }
  return infos;
}

Executable Client::Compile(std::string_view stablehlo) const {
  static constexpr std::string_view kFormat = "mlir";
  // The interface asks for mutable bytes but does not change them.
  std::string code(stablehlo);
  auto program = MakeArgs<PJRT_Program>(PJRT_Program_STRUCT_SIZE);
  program.code = code.data();
  program.code_size = code.size();
  program.format = kFormat.data();
  program.format_size = kFormat.size();
  auto args = MakeArgs<PJRT_Client_Compile_Args>(PJRT_Client_Compile_Args_STRUCT_SIZE);
  args.client = client_.get();
  args.program = &program;
  args.compile_options = CompileOptions().data();
  args.compile_options_size = CompileOptions().size();
  api_->Call(&PJRT_Api::PJRT_Client_Compile, &args, "compile a program");
  return {*api_, OwnedExecutable(*api_, args.executable), device_};
}

Executable Client::Load(std::string_view serialized) const {
  auto args = MakeArgs<PJRT_Executable_DeserializeAndLoad_Args>(
      PJRT_Executable_DeserializeAndLoad_Args_STRUCT_SIZE);
  args.client = client_.get();
  args.serialized_executable = serialized.data();
  args.serialized_executable_size = serialized.size();
  api_->Call(&PJRT_Api::PJRT_Executable_DeserializeAndLoad, &args, "load a compiled program");
  return {*api_, OwnedExecutable(*api_, args.loaded_executable), device_};
}

Buffer Client::Upload(const void* bytes, const Dtype& dtype, const std::vector<int64_t>& shape,
                      bool keep) const {
  auto args = MakeArgs<PJRT_Client_BufferFromHostBuffer_Args>(
      PJRT_Client_BufferFromHostBuffer_Args_STRUCT_SIZE);
  args.client = client_.get();
  args.data = bytes;
  args.type = dtype.pjrt;
  args.dims = shape.data();
  args.num_dims = shape.size();
  args.host_buffer_semantics = keep ? PJRT_HostBufferSemantics_kImmutableZeroCopy
                                    : PJRT_HostBufferSemantics_kImmutableOnlyDuringCall;
  args.device = device_;
  api_->Call(&PJRT_Api::PJRT_Client_BufferFromHostBuffer, &args, "send an array to the device");
  Buffer buffer(*api_, args.buffer);
  // With `keep` the event comes only when the buffer is freed: nobody waits for it.
  const OwnedEvent event(*api_, args.done_with_host_buffer);
  if (!keep) Await(args.done_with_host_buffer, "send an array to the device");
  return buffer;
}

void Client::Download(PJRT_Buffer* buffer, void* bytes, size_t size) const {
  auto args = MakeArgs<PJRT_Buffer_ToHostBuffer_Args>(PJRT_Buffer_ToHostBuffer_Args_STRUCT_SIZE);
  args.src = buffer;
  // First without a destination, to learn how many bytes there are.
  api_->Call(&PJRT_Api::PJRT_Buffer_ToHostBuffer, &args, "fetch an array from the device");
  if (args.dst_size != size) {
    throw Error(ExitCode::kDevice, "the device holds an array of " + std::to_string(args.dst_size) +
                                       " bytes where the artifact promised " +
                                       std::to_string(size));
  }
  args.dst = bytes;
  api_->Call(&PJRT_Api::PJRT_Buffer_ToHostBuffer, &args, "fetch an array from the device");
  const OwnedEvent event(*api_, args.event);
  Await(args.event, "fetch an array from the device");
}

void Client::Await(PJRT_Event* event, std::string_view doing) const {
  auto args = MakeArgs<PJRT_Event_Await_Args>(PJRT_Event_Await_Args_STRUCT_SIZE);
  args.event = event;
  api_->Call(&PJRT_Api::PJRT_Event_Await, &args, doing);
}

}  // namespace diffusion_sampler
