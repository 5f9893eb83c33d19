#include "fake_plugin.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <mutex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "pjrt_c_api.h"

struct PJRT_Error {
  PJRT_Error_Code code;
  std::string message;
};

struct PJRT_Event {
  std::unique_ptr<PJRT_Error> error;  // what waiting for it gives
};

struct PJRT_DeviceDescription {
  std::string kind = "fake";
};

struct PJRT_Device {
  PJRT_DeviceDescription description;
};

struct PJRT_Client {
  std::vector<std::unique_ptr<PJRT_Device>> devices;
  std::vector<PJRT_Device*> listed;
};

namespace {

struct Shape {
  PJRT_Buffer_Type type = PJRT_Buffer_Type_INVALID;
  std::vector<int64_t> dims;
  bool operator==(const Shape& other) const { return type == other.type && dims == other.dims; }
  [[nodiscard]] size_t elements() const {
    size_t count = 1;
    for (const int64_t dim : dims) count *= static_cast<size_t>(dim);
    return count;
  }
  // All types of the toy programs have four bytes.
  [[nodiscard]] size_t bytes() const { return 4 * elements(); }
};

struct ToyProgram {
  std::string text;
  std::string name;
  std::vector<Shape> outputs;
  std::set<size_t> donates;
};

}  // namespace

struct PJRT_Buffer {
  Shape shape;
  PJRT_Device* device = nullptr;
  std::string held;            // the bytes, unless they are the caller's
  const char* data = nullptr;  // where they are
  bool donated = false;
};

struct PJRT_LoadedExecutable {
  PJRT_Client* client;
  ToyProgram program;
  bool portable;  // compiled to run on any device
};

struct PJRT_Executable {
  ToyProgram program;
};

struct PJRT_SerializedExecutable {
  std::string bytes;
};

namespace {

// All state, behind one lock: callers may be threads.
struct World {
  FakeOrders orders{1, 0, 0, PJRT_Error_Code_INTERNAL, 0, 0};
  int64_t calls = 0;
  int64_t events = 0;
  int64_t runs = 0;
  std::string misuse;
  std::string failed_in;
  std::set<const void*> clients, buffers, live_events, executables, errors;
};

std::mutex lock;
World& world = *new World;  // outlives all that may call at exit

void Misuse(const std::string& what) {
  if (world.misuse.empty()) world.misuse = what;
}

PJRT_Error* NewError(PJRT_Error_Code code, const std::string& message) {
  auto* error = new PJRT_Error{code, message};
  world.errors.insert(error);
  return error;
}

// The error of this call, if it is the one that fails.
PJRT_Error* Failure(const char* function) {
  if (++world.calls != world.orders.fail_call) return nullptr;
  world.failed_in = function;
  return NewError(static_cast<PJRT_Error_Code>(world.orders.code),
                  std::string(function) + " fails as ordered");
}

PJRT_Event* NewEvent(const char* name) {
  auto* event = new PJRT_Event{};
  if (++world.events == world.orders.fail_event) {
    world.failed_in = name;
    event->error.reset(new PJRT_Error{static_cast<PJRT_Error_Code>(world.orders.code),
                                      "this event fails as ordered"});
  }
  world.live_events.insert(event);
  return event;
}

template <typename Handle>
bool Known(const std::set<const void*>& live, const Handle* handle, const char* what) {
  if (live.count(handle) != 0) return true;
  Misuse(std::string(what) + " that is not alive is used");
  return false;
}

template <typename Handle>
PJRT_Error* Free(std::set<const void*>* live, Handle* handle, const char* what) {
  if (Known(*live, handle, what)) {
    live->erase(handle);
    delete handle;
  }
  return nullptr;
}

PJRT_Error* Wrong(const std::string& what) {
  return NewError(PJRT_Error_Code_INVALID_ARGUMENT, what);
}

bool Parse(const std::string& text, ToyProgram* program) {
  std::istringstream words(text);
  std::string word;
  program->text = text;
  if (!(words >> word) || word != "fake" || !(words >> program->name)) return false;
  bool donates = false;
  while (words >> word) {
    if (word == "donates") {
      donates = true;
    } else if (donates) {
      program->donates.insert(std::stoul(word));
    } else {
      const size_t colon = word.find(':');
      Shape shape;
      const std::string type = word.substr(0, colon);
      shape.type = type == "F32"   ? PJRT_Buffer_Type_F32
                   : type == "U32" ? PJRT_Buffer_Type_U32
                                   : PJRT_Buffer_Type_S32;
      std::istringstream dims(word.substr(colon + 1));
      for (std::string dim; std::getline(dims, dim, ',');) shape.dims.push_back(std::stoll(dim));
      program->outputs.push_back(shape);
    }
  }
  return true;
}

// The first argument of a type and shape, if there is one.
const PJRT_Buffer* Find(const std::vector<PJRT_Buffer*>& arguments, const Shape& shape) {
  for (const PJRT_Buffer* argument : arguments) {
    if (argument->shape == shape) return argument;
  }
  return nullptr;
}

// Four bytes of an array; 0 of one that is not there.
uint32_t Word(const PJRT_Buffer* buffer, size_t place) {
  uint32_t word = 0;
  if (buffer != nullptr) std::memcpy(&word, buffer->data + 4 * place, 4);
  return word;
}

std::string Computed(const ToyProgram& program, size_t output,
                     const std::vector<PJRT_Buffer*>& arguments) {
  const Shape& shape = program.outputs[output];
  std::vector<uint32_t> words(shape.elements(), 0);
  const PJRT_Buffer* same = Find(arguments, shape);
  const auto number = static_cast<float>(Word(Find(arguments, {PJRT_Buffer_Type_S32, {}}), 0));
  const size_t row = shape.dims.empty() ? 1 : words.size() / static_cast<size_t>(shape.dims[0]);
  for (size_t i = 0; i < words.size(); ++i) {
    if (shape.type != PJRT_Buffer_Type_F32) {
      words[i] = Word(same, i);
      continue;
    }
    float value = 0.0F;
    if (program.name == "init") {
      const uint32_t seed = Word(Find(arguments, {PJRT_Buffer_Type_U32, {2}}), 1);
      const float image = number + static_cast<float>(i / row);
      value = std::min(0.9F, 0.01F * image + 0.001F * static_cast<float>(seed % 100 + i % row));
    } else {
      const uint32_t word = Word(same, i);
      std::memcpy(&value, &word, 4);
      if (program.name == "step") value = 0.9F * value + 0.01F * (number + 1.0F);
      if (program.name == "finish" && world.orders.not_finite != 0) value = NAN;
    }
    std::memcpy(&words[i], &value, 4);
  }
  return {reinterpret_cast<const char*>(words.data()), 4 * words.size()};
}

PJRT_Buffer* NewBuffer(Shape shape, PJRT_Device* device, std::string bytes) {
  auto* buffer = new PJRT_Buffer{std::move(shape), device, std::move(bytes), nullptr, false};
  buffer->data = buffer->held.data();
  world.buffers.insert(buffer);
  return buffer;
}

// The functions of the table, behind the lock. All but those that free may be told to fail.

#define FAKE_FREES(name, function)                  \
  api.name = [](name##_Args* args) -> PJRT_Error* { \
    const std::lock_guard<std::mutex> held(lock);   \
    return function(args);                          \
  }
#define FAKE_CALL(name, function)                     \
  api.name = [](name##_Args* args) -> PJRT_Error* {   \
    const std::lock_guard<std::mutex> held(lock);     \
    PJRT_Error* error = Failure(#name);               \
    return error != nullptr ? error : function(args); \
  }

void ErrorDestroy(PJRT_Error_Destroy_Args* args) {
  const std::lock_guard<std::mutex> held(lock);
  Free(&world.errors, args->error, "an error");
}

void ErrorMessage(PJRT_Error_Message_Args* args) {
  args->message = args->error->message.data();
  args->message_size = args->error->message.size();
}

PJRT_Error* PluginInitialize(PJRT_Plugin_Initialize_Args*) { return nullptr; }

PJRT_Error* EventDestroy(PJRT_Event_Destroy_Args* args) {
  return Free(&world.live_events, args->event, "an event");
}

PJRT_Error* EventAwait(PJRT_Event_Await_Args* args) {
  if (!Known(world.live_events, args->event, "an event")) return Wrong("no event");
  const PJRT_Error* error = args->event->error.get();
  return error == nullptr ? nullptr : NewError(error->code, error->message);
}

PJRT_Error* ClientCreate(PJRT_Client_Create_Args* args) {
  auto* client = new PJRT_Client;
  for (int64_t i = 0; i < world.orders.devices; ++i) {
    client->devices.push_back(std::make_unique<PJRT_Device>());
    client->listed.push_back(client->devices.back().get());
  }
  world.clients.insert(client);
  args->client = client;
  return nullptr;
}

PJRT_Error* ClientDestroy(PJRT_Client_Destroy_Args* args) {
  if (!world.buffers.empty() || !world.executables.empty() || !world.live_events.empty()) {
    Misuse("a client is destroyed before what belongs to it");
  }
  return Free(&world.clients, args->client, "a client");
}

PJRT_Error* ClientPlatformName(PJRT_Client_PlatformName_Args* args) {
  args->platform_name = "cpu";
  args->platform_name_size = 3;
  return nullptr;
}

PJRT_Error* ClientPlatformVersion(PJRT_Client_PlatformVersion_Args* args) {
  args->platform_version = "fake 1";
  args->platform_version_size = 6;
  return nullptr;
}

PJRT_Error* ClientAddressableDevices(PJRT_Client_AddressableDevices_Args* args) {
  args->addressable_devices = args->client->listed.data();
  args->num_addressable_devices = args->client->listed.size();
  return nullptr;
}

PJRT_Error* DeviceGetDescription(PJRT_Device_GetDescription_Args* args) {
  args->device_description = &args->device->description;
  return nullptr;
}

PJRT_Error* DeviceDescriptionKind(PJRT_DeviceDescription_Kind_Args* args) {
  const std::string& kind = args->device_description->kind;
  args->device_kind = kind.data();
  args->device_kind_size = kind.size();
  return nullptr;
}

PJRT_Error* DeviceMemoryStats(PJRT_Device_MemoryStats_Args*) {
  return NewError(PJRT_Error_Code_UNIMPLEMENTED, "nothing is known of the memory");
}

// Field 4 of the serialized options, whose value is 1: to run on any device.
bool Portable(const std::string& options) {
  return options.size() >= 2 && options.compare(options.size() - 2, 2, "\x20\x01") == 0;
}

PJRT_Error* Loaded(PJRT_Client* client, const std::string& text, bool portable,
                   PJRT_LoadedExecutable** loaded) {
  ToyProgram program;
  if (!Parse(text, &program)) return Wrong("this is no program");
  *loaded = new PJRT_LoadedExecutable{client, std::move(program), portable};
  world.executables.insert(*loaded);
  return nullptr;
}

PJRT_Error* ClientCompile(PJRT_Client_Compile_Args* args) {
  return Loaded(args->client, {args->program->code, args->program->code_size},
                Portable({args->compile_options, args->compile_options_size}), &args->executable);
}

PJRT_Error* ExecutableDeserializeAndLoad(PJRT_Executable_DeserializeAndLoad_Args* args) {
  const std::string bytes(args->serialized_executable, args->serialized_executable_size);
  return Loaded(args->client, bytes.substr(std::min<size_t>(1, bytes.size())), bytes[0] == 'p',
                &args->loaded_executable);
}

PJRT_Error* LoadedExecutableDestroy(PJRT_LoadedExecutable_Destroy_Args* args) {
  return Free(&world.executables, args->executable, "a loaded program");
}

PJRT_Error* LoadedExecutableGetExecutable(PJRT_LoadedExecutable_GetExecutable_Args* args) {
  if (!Known(world.executables, args->loaded_executable, "a loaded program")) return Wrong("?");
  const PJRT_LoadedExecutable& loaded = *args->loaded_executable;
  args->executable = new PJRT_Executable{loaded.program};
  args->executable->program.text.insert(0, loaded.portable ? "p" : "-");
  world.executables.insert(args->executable);
  return nullptr;
}

PJRT_Error* ExecutableDestroy(PJRT_Executable_Destroy_Args* args) {
  return Free(&world.executables, args->executable, "a program");
}

PJRT_Error* ExecutableNumOutputs(PJRT_Executable_NumOutputs_Args* args) {
  args->num_outputs = args->executable->program.outputs.size();
  return nullptr;
}

PJRT_Error* ExecutableSerialize(PJRT_Executable_Serialize_Args* args) {
  auto* serialized = new PJRT_SerializedExecutable{args->executable->program.text};
  world.executables.insert(serialized);
  args->serialized_executable = serialized;
  args->serialized_bytes = serialized->bytes.data();
  args->serialized_bytes_size = serialized->bytes.size();
  args->serialized_executable_deleter = [](PJRT_SerializedExecutable* executable) {
    const std::lock_guard<std::mutex> inner(lock);
    Free(&world.executables, executable, "a serialized program");
  };
  return nullptr;
}

PJRT_Error* ClientBufferFromHostBuffer(PJRT_Client_BufferFromHostBuffer_Args* args) {
  Shape shape{args->type, {args->dims, args->dims + args->num_dims}};
  const auto* bytes = static_cast<const char*>(args->data);
  PJRT_Buffer* buffer = NewBuffer(shape, args->device, {});
  const bool kept = args->host_buffer_semantics == PJRT_HostBufferSemantics_kImmutableZeroCopy;
  if (kept) {
    buffer->data = bytes;
  } else {
    buffer->held.assign(bytes, shape.bytes());
    buffer->data = buffer->held.data();
  }
  args->buffer = buffer;
  args->done_with_host_buffer = NewEvent(kept ? "the event of a kept array" : "an array's event");
  return nullptr;
}

PJRT_Error* BufferDestroy(PJRT_Buffer_Destroy_Args* args) {
  return Free(&world.buffers, args->buffer, "a buffer");
}

PJRT_Error* BufferToHostBuffer(PJRT_Buffer_ToHostBuffer_Args* args) {
  if (!Known(world.buffers, args->src, "a buffer")) return Wrong("no buffer");
  if (args->src->donated) Misuse("a buffer that was given away is fetched");
  if (args->dst == nullptr) {
    args->dst_size = args->src->shape.bytes();
    return nullptr;
  }
  if (args->dst_size < args->src->shape.bytes()) return Wrong("too little room");
  std::memcpy(args->dst, args->src->data, args->src->shape.bytes());
  args->event = NewEvent("a fetch's event");
  return nullptr;
}

PJRT_Error* LoadedExecutableExecute(PJRT_LoadedExecutable_Execute_Args* args) {
  if (!Known(world.executables, args->executable, "a loaded program")) return Wrong("?");
  const PJRT_LoadedExecutable& loaded = *args->executable;
  PJRT_Device* device = args->execute_device;
  if (loaded.portable != (device != nullptr)) {
    return Wrong("a portable program needs a device to run on, and no other may be given one");
  }
  if (device == nullptr) device = loaded.client->listed[0];
  const std::vector<PJRT_Buffer*> arguments(args->argument_lists[0],
                                            args->argument_lists[0] + args->num_args);
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (!Known(world.buffers, arguments[i], "a buffer")) return Wrong("no buffer");
    if (arguments[i]->donated) Misuse("a buffer that was given away is an argument");
    if (arguments[i]->device != device) {
      return Wrong("argument " + std::to_string(i) + " is on another device");
    }
  }
  for (size_t i = 0; i < loaded.program.outputs.size(); ++i) {
    args->output_lists[0][i] =
        NewBuffer(loaded.program.outputs[i], device, Computed(loaded.program, i, arguments));
  }
  for (const size_t place : loaded.program.donates) arguments[place]->donated = true;
  if (args->device_complete_events != nullptr)
    args->device_complete_events[0] = NewEvent("a run's event");
  ++world.runs;
  return nullptr;
}

PJRT_Api Table() {
  PJRT_Api api{};
  api.struct_size = PJRT_Api_STRUCT_SIZE;
  api.pjrt_api_version.struct_size = PJRT_Api_Version_STRUCT_SIZE;
  api.pjrt_api_version.major_version = PJRT_API_MAJOR;
  api.pjrt_api_version.minor_version = PJRT_API_MINOR;
  api.PJRT_Error_Destroy = ErrorDestroy;
  api.PJRT_Error_Message = ErrorMessage;
  FAKE_CALL(PJRT_Plugin_Initialize, PluginInitialize);
  FAKE_FREES(PJRT_Event_Destroy, EventDestroy);
  FAKE_CALL(PJRT_Event_Await, EventAwait);
  FAKE_CALL(PJRT_Client_Create, ClientCreate);
  FAKE_FREES(PJRT_Client_Destroy, ClientDestroy);
  FAKE_CALL(PJRT_Client_PlatformName, ClientPlatformName);
  FAKE_CALL(PJRT_Client_PlatformVersion, ClientPlatformVersion);
  FAKE_CALL(PJRT_Client_AddressableDevices, ClientAddressableDevices);
  FAKE_CALL(PJRT_Client_Compile, ClientCompile);
  FAKE_CALL(PJRT_Client_BufferFromHostBuffer, ClientBufferFromHostBuffer);
  FAKE_CALL(PJRT_Device_GetDescription, DeviceGetDescription);
  FAKE_CALL(PJRT_DeviceDescription_Kind, DeviceDescriptionKind);
  FAKE_CALL(PJRT_Device_MemoryStats, DeviceMemoryStats);
  FAKE_FREES(PJRT_Executable_Destroy, ExecutableDestroy);
  FAKE_CALL(PJRT_Executable_NumOutputs, ExecutableNumOutputs);
  FAKE_CALL(PJRT_Executable_Serialize, ExecutableSerialize);
  FAKE_CALL(PJRT_Executable_DeserializeAndLoad, ExecutableDeserializeAndLoad);
  FAKE_FREES(PJRT_LoadedExecutable_Destroy, LoadedExecutableDestroy);
  FAKE_CALL(PJRT_LoadedExecutable_GetExecutable, LoadedExecutableGetExecutable);
  FAKE_CALL(PJRT_LoadedExecutable_Execute, LoadedExecutableExecute);
  FAKE_FREES(PJRT_Buffer_Destroy, BufferDestroy);
  FAKE_CALL(PJRT_Buffer_ToHostBuffer, BufferToHostBuffer);
  return api;
}

void Copy(const std::string& text, char* room, size_t size) {
  std::strncpy(room, text.c_str(), size - 1);
  room[size - 1] = '\0';
}

}  // namespace

extern "C" {

const PJRT_Api* GetPjrtApi() {
  static PJRT_Api api;
  const std::lock_guard<std::mutex> held(lock);
  api = Table();
  if (world.orders.table_bytes != 0) {
    api.struct_size = static_cast<size_t>(world.orders.table_bytes);
  }
  return &api;
}

void FakePluginOrder(const FakeOrders* orders) {
  const std::lock_guard<std::mutex> held(lock);
  world = World{};
  world.orders = *orders;
}

void FakePluginReport(FakeReport* report) {
  const std::lock_guard<std::mutex> held(lock);
  *report = {};
  report->live_clients = static_cast<int64_t>(world.clients.size());
  report->live_buffers = static_cast<int64_t>(world.buffers.size());
  report->live_events = static_cast<int64_t>(world.live_events.size());
  report->live_executables = static_cast<int64_t>(world.executables.size());
  report->live_errors = static_cast<int64_t>(world.errors.size());
  report->runs = world.runs;
  Copy(world.misuse, report->misuse, sizeof(report->misuse));
  Copy(world.failed_in, report->failed_in, sizeof(report->failed_in));
}
}
