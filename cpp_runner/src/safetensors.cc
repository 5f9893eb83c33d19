#include "safetensors.h"

#include <algorithm>
#include <limits>
#include <set>
#include <utility>

#include "error.h"

namespace diffusion_sampler {
namespace {

using nlohmann::json;

constexpr size_t kAlignment = 64;
constexpr uint64_t kMaxHeader = uint64_t{1} << 24;
constexpr size_t kMaxDepth = 32;

[[noreturn]] void Fail(const std::string& message) {
  throw Error(ExitCode::kArtifact, "the file is damaged or not an artifact: " + message);
}

uint64_t LittleEndian64(std::string_view bytes) {
  uint64_t value = 0;
  for (size_t i = 8; i-- > 0;) value = value << 8 | static_cast<unsigned char>(bytes[i]);
  return value;
}

// A non-negative integer; JSON's other numbers are refused, 3.0 among them.
uint64_t Count(const json& value, const std::string& what) {
  if (!value.is_number_unsigned()) Fail(what + " must be a non-negative integer");
  return value.get<uint64_t>();
}

// One entry of the header, with its place checked against `data`.
Tensor ParseTensor(const std::string& name, const json& entry, std::string_view data,
                   uint64_t* begin) {
  if (!entry.is_object() || !entry.contains("dtype") || !entry.contains("shape") ||
      !entry.contains("data_offsets")) {
    Fail("tensor '" + name + "' lacks dtype, shape or data_offsets");
  }
  const json& dtype_name = entry["dtype"];
  const auto dtype =
      dtype_name.is_string() ? FindDtype(dtype_name.get_ref<const std::string&>()) : std::nullopt;
  if (!dtype) Fail("tensor '" + name + "' has an unknown dtype " + dtype_name.dump());

  const json& shape = entry["shape"];
  if (!shape.is_array()) Fail("the shape of tensor '" + name + "' must be a list");
  std::vector<int64_t> dimensions;
  uint64_t length = dtype->size;
  for (const json& item : shape) {
    const uint64_t dimension = Count(item, "each dimension of tensor '" + name + "'");
    // No product may overflow: the data's own length bounds them all, zero-sized ones aside.
    if (dimension > data.size() || (dimension != 0 && length > data.size() / dimension)) {
      Fail("tensor '" + name + "' is larger than the file");
    }
    length *= dimension;
    dimensions.push_back(static_cast<int64_t>(dimension));
  }

  const json& offsets = entry["data_offsets"];
  if (!offsets.is_array() || offsets.size() != 2) {
    Fail("data_offsets of tensor '" + name + "' must be two numbers");
  }
  *begin = Count(offsets[0], "each data offset of tensor '" + name + "'");
  const uint64_t end = Count(offsets[1], "each data offset of tensor '" + name + "'");
  if (*begin > end || end > data.size()) {
    Fail("tensor '" + name + "' lies outside the file: truncated?");
  }
  if (end - *begin != length) {
    Fail("tensor '" + name + "' has " + std::to_string(end - *begin) +
         " bytes, but its shape needs " + std::to_string(length));
  }
  return {*dtype, std::move(dimensions), data.substr(*begin, length)};
}

// Reads JSON and keeps nothing: it refuses what is nested too deeply, and what names a member
// twice.
class StrictReader : public nlohmann::json_sax<json> {
 public:
  explicit StrictReader(const std::string& what) : what_(what) {}

  bool null() override { return true; }
  bool boolean(bool /*value*/) override { return true; }
  bool number_integer(int64_t /*value*/) override { return true; }
  bool number_unsigned(uint64_t /*value*/) override { return true; }
  bool number_float(double /*value*/, const std::string& /*text*/) override { return true; }
  bool string(std::string& /*value*/) override { return true; }
  bool binary(json::binary_t& /*value*/) override { return true; }

  bool start_object(size_t /*size*/) override { return Open(); }
  bool end_object() override { return Close(); }
  bool start_array(size_t /*size*/) override { return Open(); }
  bool end_array() override { return Close(); }
  bool key(std::string& name) override {
    if (!open_.back().insert(name).second) Fail(what_ + " names '" + name + "' twice");
    return true;
  }
  bool parse_error(size_t /*place*/, const std::string& /*token*/,
                   const nlohmann::detail::exception& error) override {
    Fail(what_ + " is not valid JSON (" + error.what() + ")");
  }

 private:
  bool Open() {
    if (open_.size() == kMaxDepth) Fail(what_ + " is nested too deeply");
    open_.emplace_back();
    return true;
  }
  bool Close() {
    open_.pop_back();
    return true;
  }

  const std::string& what_;
  // Names of the members seen so far of each object that is open; of an array, none.
  std::vector<std::set<std::string>> open_;
};

}  // namespace

json ParseJson(std::string_view text, const std::string& what) {
  // Two passes, since a parser with callbacks takes time in the square of an object's members.
  StrictReader reader(what);
  json::sax_parse(text.begin(), text.end(), &reader);
  return json::parse(text.begin(), text.end());
}

Container ParseContainer(std::string_view file) {
  if (file.size() < 8)
    Fail("it is shorter than the 8 bytes that every safetensors file begins with");
  const uint64_t header_size = LittleEndian64(file);
  if (header_size > kMaxHeader || header_size > file.size() - 8) {
    Fail("its header claims " + std::to_string(header_size) +
         " bytes, more than there are: truncated?");
  }
  if ((8 + header_size) % kAlignment != 0) {
    Fail(
        "its header does not end at a multiple of 64 bytes. If it is the file of a model, "
        "diffusion-eqx-export makes an artifact of it");
  }
  const std::string_view text = file.substr(8, header_size);
  const std::string_view data = file.substr(8 + header_size);
  if (text.empty() || text.front() != '{') Fail("its header does not begin with '{'");
  const json header = ParseJson(text, "its header");

  Container container;
  std::vector<std::pair<uint64_t, uint64_t>> places;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") {
      if (!entry.is_object()) Fail("__metadata__ must be an object");
      for (const auto& [key, value] : entry.items()) {
        if (!value.is_string()) Fail("__metadata__." + key + " must be a string");
        container.metadata.emplace(key, value.get<std::string>());
      }
      continue;
    }
    uint64_t begin = 0;
    Tensor tensor = ParseTensor(name, entry, data, &begin);
    places.emplace_back(begin, begin + tensor.bytes.size());
    if (name.rfind("padding.", 0) == 0) {
      const bool zero = std::all_of(tensor.bytes.begin(), tensor.bytes.end(),
                                    [](char byte) { return byte == 0; });
      if (tensor.dtype.name != "U8" || tensor.bytes.size() >= kAlignment || !zero) {
        Fail("tensor '" + name + "' is not fewer than 64 zero bytes");
      }
      continue;
    }
    if (begin % kAlignment != 0)
      Fail("tensor '" + name + "' does not begin at a multiple of 64 bytes");
    container.tensors.emplace(name, std::move(tensor));
  }

  std::sort(places.begin(), places.end());
  uint64_t end = 0;
  for (const auto& [begin, next] : places) {
    if (begin != end) Fail("its tensors overlap or leave holes at byte " + std::to_string(end));
    end = next;
  }
  if (end != data.size()) {
    Fail("its tensors end at byte " + std::to_string(end) + " of " + std::to_string(data.size()));
  }
  return container;
}

}  // namespace diffusion_sampler
