// PJRT's C interface with owners: every handle is freed once, every error becomes an Error.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "dtype.h"
#include "error.h"
#include "pjrt_c_api.h"

namespace diffusion_sampler {

// An argument structure, zeroed, with its size set.
template <typename Args>
Args MakeArgs(size_t struct_size) {
  Args args{};
  args.struct_size = struct_size;
  return args;
}

// A loaded plugin's table of functions. Plugins stay loaded until the process ends: unloading one
// that has started threads is not safe.
class Api {
 public:
  // Loads and initialises a plugin. Throws Error(kPlugin).
  static Api Load(const std::filesystem::path& path);

  // Calls the function at `member` of the table. Throws Error(kUnsupported) if the plugin is too
  // old to have it, Error(kDevice) with the plugin's own message if it fails.
  template <typename Function, typename Args>
  void Call(Function* PJRT_Api::* member, Args* args, std::string_view doing) const {
    PJRT_Error* error = Find(member, doing)(args);
    if (error != nullptr) Throw(error, doing);
  }

  // The same for clean-up: never throws, and a failure to free is nobody's to mend.
  template <typename Function, typename Args>
  void CallQuietly(Function* PJRT_Api::* member, Args* args) const noexcept {
    if (!Has(member)) return;
    PJRT_Error* error = (table_->*member)(args);
    if (error != nullptr) Destroy(error);
  }

  [[nodiscard]] std::string Version() const;
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

 private:
  Api(const PJRT_Api* table, std::filesystem::path path) : table_(table), path_(std::move(path)) {}

  // A plugin older than the header has a shorter table: nothing beyond its end may be read.
  template <typename Function>
  [[nodiscard]] bool Has(Function* PJRT_Api::* member) const noexcept {
    const auto* start = reinterpret_cast<const char*>(table_);
    const auto* place = reinterpret_cast<const char*>(&(table_->*member));
    return static_cast<size_t>(place - start) + sizeof(Function*) <= table_->struct_size &&
           table_->*member != nullptr;
  }

  template <typename Function>
  Function* Find(Function* PJRT_Api::* member, std::string_view doing) const {
    if (!Has(member)) {
      throw Error(ExitCode::kUnsupported, "the plugin " + path_.string() +
                                              " is too old: it cannot " + std::string(doing) +
                                              "; install a newer one");
    }
    return table_->*member;
  }

  [[noreturn]] void Throw(PJRT_Error* error, std::string_view doing) const;
  void Destroy(PJRT_Error* error) const noexcept;

  const PJRT_Api* table_;
  std::filesystem::path path_;
};

// Owns a PJRT handle; `Release` frees one.
template <typename Handle, void (*Release)(const Api&, Handle*) noexcept>
class Owned {
 public:
  Owned() = default;
  Owned(const Api& api, Handle* handle) : api_(&api), handle_(handle) {}
  Owned(Owned&& other) noexcept
      : api_(other.api_), handle_(std::exchange(other.handle_, nullptr)) {}
  Owned& operator=(Owned&& other) noexcept {
    std::swap(api_, other.api_);
    std::swap(handle_, other.handle_);
    return *this;
  }
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;
  ~Owned() {
    if (handle_ != nullptr) Release(*api_, handle_);
  }
  [[nodiscard]] Handle* get() const { return handle_; }

 private:
  const Api* api_ = nullptr;
  Handle* handle_ = nullptr;
};

void ReleaseClient(const Api& api, PJRT_Client* client) noexcept;
void ReleaseBuffer(const Api& api, PJRT_Buffer* buffer) noexcept;
void ReleaseExecutable(const Api& api, PJRT_LoadedExecutable* executable) noexcept;
void ReleaseEvent(const Api& api, PJRT_Event* event) noexcept;
void ReleaseProgram(const Api& api, PJRT_Executable* program) noexcept;

using OwnedClient = Owned<PJRT_Client, ReleaseClient>;
using Buffer = Owned<PJRT_Buffer, ReleaseBuffer>;
using OwnedExecutable = Owned<PJRT_LoadedExecutable, ReleaseExecutable>;
using OwnedEvent = Owned<PJRT_Event, ReleaseEvent>;
using OwnedProgram = Owned<PJRT_Executable, ReleaseProgram>;

// How a client is made; the memory options concern GPUs only.
struct ClientOptions {
  int device = 0;
  double memory_fraction = 0.0;  // 0: as much as is needed
};

struct DeviceInfo {
  int index;
  std::string kind;
  int64_t memory_limit;  // bytes; 0 if the plugin does not say
};

// A program on its device.
class Executable {
 public:
  Executable(const Api& api, OwnedExecutable handle, PJRT_Device* device)
      : api_(&api), handle_(std::move(handle)), device_(device) {}

  // Number of results, to be checked before the first run: PJRT writes as many, wanted or not.
  [[nodiscard]] size_t NumOutputs() const;

  // The compiled program's own bytes, for the cache of this machine. Throws Error.
  [[nodiscard]] std::string Serialize() const;

  // Runs the program and waits for it. Inputs that it was compiled to take over are dead
  // afterwards.
  [[nodiscard]] std::vector<Buffer> Run(const std::vector<PJRT_Buffer*>& inputs,
                                        size_t outputs) const;

 private:
  [[nodiscard]] OwnedProgram Inspected() const;

  const Api* api_;
  OwnedExecutable handle_;
  PJRT_Device* device_;
};

// A plugin's client and the one device that is used.
class Client {
 public:
  // Throws Error(kPlugin) if the plugin finds no device, or not the one asked for.
  Client(Api api, const ClientOptions& options);

  [[nodiscard]] const Api& api() const { return *api_; }
  [[nodiscard]] const std::string& platform() const { return platform_; }
  [[nodiscard]] const std::string& platform_version() const { return platform_version_; }
  [[nodiscard]] std::vector<DeviceInfo> Devices() const;

  // Compiles a portable StableHLO program for one device.
  [[nodiscard]] Executable Compile(std::string_view stablehlo) const;
  // Loads what `Executable::Serialize` gave on this very machine.
  [[nodiscard]] Executable Load(std::string_view serialized) const;

  // Sends an array to the device. With `keep`, the bytes stay valid and unchanged for as long as
  // the buffer lives, and a device that shares the host's memory may use them in place.
  [[nodiscard]] Buffer Upload(const void* bytes, const Dtype& dtype,
                              const std::vector<int64_t>& shape, bool keep) const;
  // Fetches an array of `size` bytes.
  void Download(PJRT_Buffer* buffer, void* bytes, size_t size) const;

 private:
  void Await(PJRT_Event* event, std::string_view doing) const;

  std::unique_ptr<Api> api_;
  OwnedClient client_;
  std::vector<PJRT_Device*> devices_;
  PJRT_Device* device_ = nullptr;
  std::string platform_;
  std::string platform_version_;
};

// The options every program is compiled with: one replica, one partition, and portable, so that one
// compiled program runs on any device of its kind.
std::string_view CompileOptions();

}  // namespace diffusion_sampler
