#include "manifest.h"

#include <algorithm>
#include <limits>
#include <set>
#include <utility>

#include "error.h"
#include "safetensors.h"

namespace diffusion_sampler {
namespace {

using nlohmann::json;

constexpr int64_t kMaxDimension = int64_t{1} << 24;
constexpr int64_t kMaxElements = int64_t{1} << 40;
constexpr size_t kMaxRank = 8;

[[noreturn]] void Fail(const std::string& message) {
  throw Error(ExitCode::kArtifact, "the artifact's manifest is wrong: " + message);
}

// A JSON value that knows its place in the manifest, for messages.
class Node {
 public:
  Node(const json& value, std::string place) : value_(value), place_(std::move(place)) {}

  [[nodiscard]] const json& value() const { return value_; }
  [[nodiscard]] const std::string& place() const { return place_; }

  [[nodiscard]] Node operator[](const char* member) const {
    if (!value_.is_object()) Fail(place_ + " must be an object");
    const auto found = value_.find(member);
    if (found == value_.end()) Fail(place_ + " lacks '" + member + "'");
    return {*found, place_ + "." + member};
  }

  [[nodiscard]] std::vector<Node> Items() const {
    if (!value_.is_array()) Fail(place_ + " must be a list");
    std::vector<Node> items;
    for (size_t i = 0; i < value_.size(); ++i) {
      items.emplace_back(value_[i], place_ + "[" + std::to_string(i) + "]");
    }
    return items;
  }

  [[nodiscard]] std::vector<std::pair<std::string, Node>> Members() const {
    if (!value_.is_object()) Fail(place_ + " must be an object");
    std::vector<std::pair<std::string, Node>> members;
    for (const auto& [name, member] : value_.items()) {
      members.emplace_back(name, Node(member, place_ + "." + name));
    }
    return members;
  }

  [[nodiscard]] std::string String() const {
    if (!value_.is_string()) Fail(place_ + " must be a string");
    return value_.get<std::string>();
  }

  [[nodiscard]] bool Bool() const {
    if (!value_.is_boolean()) Fail(place_ + " must be true or false");
    return value_.get<bool>();
  }

  [[nodiscard]] double Number() const {
    if (!value_.is_number()) Fail(place_ + " must be a number");
    return value_.get<double>();
  }

  [[nodiscard]] int64_t Integer(int64_t min, int64_t max) const {
    // Unsigned values beyond int64 are caught here too: they are not what int64 makes of them.
    if (!value_.is_number_integer() ||
        (value_.is_number_unsigned() && value_.get<uint64_t>() > uint64_t{INT64_MAX}) ||
        value_.get<int64_t>() < min || value_.get<int64_t>() > max) {
      Fail(place_ + " must be an integer from " + std::to_string(min) + " to " +
           std::to_string(max));
    }
    return value_.get<int64_t>();
  }

 private:
  const json& value_;
  std::string place_;
};

Dtype ParseDtype(const Node& node) {
  const auto dtype = FindDtype(node.String());
  if (!dtype) Fail(node.place() + " is an unknown dtype '" + node.String() + "'");
  return *dtype;
}

std::vector<int64_t> ParseShape(const Node& node, int64_t min) {
  std::vector<int64_t> shape;
  int64_t elements = 1;
  for (const Node& item : node.Items()) {
    const int64_t dimension = item.Integer(min, kMaxDimension);
    // The factor of a batch, -1, and that of an empty array count as 1.
    const int64_t factor = std::max<int64_t>(dimension, 1);
    if (elements > kMaxElements / factor) Fail(node.place() + " is too large");
    if (shape.size() == kMaxRank) Fail(node.place() + " has too many dimensions");
    elements *= factor;
    shape.push_back(dimension);
  }
  return shape;
}

Parameter ParseParameter(const std::string& name, const Node& node) {
  const std::string dtype = node["dtype"].String();
  if (dtype != "I32" && dtype != "F32") Fail(node.place() + ".dtype must be I32 or F32");
  Parameter parameter{name,
                      dtype == "I32",
                      node["default"].Number(),
                      node["min"].Number(),
                      node["max"].Number(),
                      node["about"].String()};
  if (!(parameter.min <= parameter.value && parameter.value <= parameter.max)) {
    Fail(node.place() + " must have min <= default <= max");
  }
  if (parameter.integer) {
    for (const char* member : {"default", "min", "max"}) {
      (void)node[member].Integer(std::numeric_limits<int32_t>::min(),
                                 std::numeric_limits<int32_t>::max());
    }
  }
  return parameter;
}

Labels ParseLabels(const Node& node) {
  Labels labels{
      node["count"].Integer(1, 1'000'000), node["null"].Integer(INT32_MIN, INT32_MAX), {}};
  for (const Node& item : node["names"].Items()) labels.names.push_back(item.String());
  if (static_cast<int64_t>(labels.names.size()) != labels.count) {
    Fail(node.place() + ".names must hold " + std::to_string(labels.count) + " names");
  }
  return labels;
}

Tolerance ParseTolerance(const Node& node) {
  return {node["noise"].Number(), node["image"].Number()};
}

Reference ParseReference(const Node& node, const Manifest& manifest) {
  Reference reference{};
  reference.seed = static_cast<uint32_t>(node["seed"].Integer(0, UINT32_MAX));
  reference.steps = node["steps"].Integer(1, INT32_MAX);
  reference.count = node["count"].Integer(1, 4096);
  for (const auto& [name, value] : node["parameters"].Members()) {
    reference.parameters.emplace(name, value.Number());
  }
  for (const Parameter& parameter : manifest.parameters) {
    if (parameter.name != "steps" && reference.parameters.count(parameter.name) == 0) {
      Fail(node.place() + ".parameters lacks '" + parameter.name + "'");
    }
  }
  const Node labels = node["labels"];
  if (manifest.labels.has_value() != !labels.value().is_null()) {
    Fail(labels.place() + " must be null just when labels are");
  }
  if (manifest.labels) {
    for (const Node& label : labels.Items()) {
      reference.labels.push_back(static_cast<int32_t>(label.Integer(INT32_MIN, INT32_MAX)));
    }
    if (static_cast<int64_t>(reference.labels.size()) != reference.count) {
      Fail(labels.place() + " must hold one label for each of count images");
    }
  }
  reference.cpu = ParseTolerance(node["tolerance"]["cpu"]);
  reference.other = ParseTolerance(node["tolerance"]["other"]);
  return reference;
}

Role ParseRole(const Node& node) {
  static const std::map<std::string, Role> kRoles = {
      {"weight", Role::kWeight}, {"seed", Role::kSeed},   {"first", Role::kFirst},
      {"state", Role::kState},   {"index", Role::kIndex}, {"parameter", Role::kParameter},
      {"label", Role::kLabel},   {"image", Role::kImage}};
  const auto found = kRoles.find(node.String());
  if (found == kRoles.end()) Fail(node.place() + " is an unknown role '" + node.String() + "'");
  return found->second;
}

Argument ParseArgument(const Node& node) {
  return {ParseRole(node["role"]), node["name"].String(), ParseDtype(node["dtype"]),
          ParseShape(node["shape"], 0), false};
}

void Require(const Node& node, const Argument& argument, std::string_view dtype,
             const std::vector<int64_t>& shape) {
  if (argument.dtype.name != dtype || argument.shape != shape) {
    Fail(node.place() + " must be " + std::string(dtype) + " " + ShapeText(shape));
  }
}

// The state arrays with the batch put in.
std::vector<Argument> StateOf(const Manifest& manifest, int64_t batch) {
  std::vector<Argument> state = manifest.state;
  for (Argument& array : state) array.shape[0] = batch;
  return state;
}

enum class Stage { kInit, kStep, kFinish };

// Checks an input against its role's row in FORMAT.md, 3.5; weights are checked against the
// tensors.
void CheckInput(const Node& node, const Argument& input, Stage stage, const Manifest& manifest,
                int64_t batch) {
  const auto only_in = [&](Stage wanted) {
    if (stage != wanted) Fail(node.place() + " has a role that this program cannot have");
  };
  switch (input.role) {
    case Role::kWeight:
      return;
    case Role::kSeed:
      only_in(Stage::kInit);
      return Require(node, input, "U32", {2});
    case Role::kFirst:
      only_in(Stage::kInit);
      return Require(node, input, "I32", {});
    case Role::kIndex:
      only_in(Stage::kStep);
      return Require(node, input, "I32", {});
    case Role::kLabel:
      only_in(Stage::kStep);
      if (!manifest.labels) Fail(node.place() + " is a label, but labels are null");
      return Require(node, input, "I32", {batch});
    case Role::kParameter: {
      const Parameter* parameter = manifest.FindParameter(input.name);
      if (parameter == nullptr) Fail(node.place() + " names no parameter: '" + input.name + "'");
      return Require(node, input, parameter->integer ? "I32" : "F32", {});
    }
    case Role::kState: {
      if (stage == Stage::kInit) Fail(node.place() + " has a role that this program cannot have");
      for (const Argument& array : StateOf(manifest, batch)) {
        if (array.name == input.name) return Require(node, input, array.dtype.name, array.shape);
      }
      Fail(node.place() + " names no state: '" + input.name + "'");
    }
    case Role::kImage:
      Fail(node.place() + " has a role that no input can have");
  }
}

Program ParseProgram(const Node& node, Stage stage, const Manifest& manifest, int64_t batch) {
  Program program{node["tensor"].String(), {}, {}};
  std::set<std::pair<Role, std::string>> seen;
  for (const Node& item : node["inputs"].Items()) {
    Argument input = ParseArgument(item);
    input.donated = item["donated"].Bool();
    if (input.donated && (input.role != Role::kState || stage != Stage::kStep)) {
      Fail(item.place() + " must not be donated: only the state of step may be");
    }
    if (!seen.emplace(input.role, input.name).second) Fail(item.place() + " stands there twice");
    CheckInput(item, input, stage, manifest, batch);
    program.inputs.push_back(std::move(input));
  }
  for (const Node& item : node["outputs"].Items()) program.outputs.push_back(ParseArgument(item));

  std::vector<Argument> expected = StateOf(manifest, batch);
  if (stage == Stage::kFinish) {
    const auto [height, width, channels] = manifest.shape;
    expected = {
        {Role::kImage, "image", *FindDtype("F32"), {batch, height, width, channels}, false}};
  }
  const auto same = [](const Argument& a, const Argument& b) {
    return a.role == b.role && a.name == b.name && a.dtype == b.dtype && a.shape == b.shape;
  };
  if (!std::equal(program.outputs.begin(), program.outputs.end(), expected.begin(), expected.end(),
                  same)) {
    Fail(node.place() + ".outputs must be " +
         (stage == Stage::kFinish ? "the image" : "the state's arrays, in order"));
  }
  return program;
}

void ParseSample(const Node& node, Manifest* manifest) {
  manifest->sampler = node["sampler"].String();
  const auto shape = ParseShape(node["shape"], 1);
  if (shape.size() != 3 || (shape[2] != 1 && shape[2] != 3)) {
    Fail(node.place() + ".shape must be [height, width, 1 or 3]");
  }
  manifest->shape = {shape[0], shape[1], shape[2]};
  const auto range = node["range"].Items();
  if (range.size() != 2 || range[0].Number() != -1.0 || range[1].Number() != 1.0) {
    Fail(node.place() + ".range must be [-1, 1]");
  }
}

void ParseState(const Node& node, Manifest* manifest) {
  std::set<std::string> names;
  for (const Node& item : node.Items()) {
    Argument array{Role::kState, item["name"].String(), ParseDtype(item["dtype"]),
                   ParseShape(item["shape"], -1), false};
    if (array.shape.empty() || array.shape[0] != -1 ||
        std::count(array.shape.begin(), array.shape.end(), -1) != 1) {
      Fail(item.place() + ".shape must begin with its only -1");
    }
    if (!names.insert(array.name).second) Fail(node.place() + " names '" + array.name + "' twice");
    manifest->state.push_back(std::move(array));
  }
  if (manifest->state.empty() || manifest->state[0].name != "x" ||
      manifest->state[0].dtype.name != "F32") {
    Fail(node.place() + " must begin with 'x', an F32 array");
  }
}

}  // namespace

const Parameter* Manifest::FindParameter(std::string_view parameter) const {
  for (const Parameter& candidate : parameters) {
    if (candidate.name == parameter) return &candidate;
  }
  return nullptr;
}

std::string ShapeText(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) {
    text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  }
  return text + "]";
}

Manifest ParseManifest(std::string_view text) {
  const json document = ParseJson(text, "its manifest");
  const Node root(document, "manifest");
  Manifest manifest{};
  manifest.name = root["name"].String();
  manifest.model = root["model"].value();
  manifest.producer = root["producer"].value();
  if (!manifest.model.is_object() || !manifest.producer.is_object()) {
    Fail("model and producer must be objects");
  }
  ParseSample(root["sample"], &manifest);
  for (const auto& [name, node] : root["parameters"].Members()) {
    manifest.parameters.push_back(ParseParameter(name, node));
  }
  const Parameter* steps = manifest.FindParameter("steps");
  if (steps == nullptr || !steps->integer || steps->min < 1) {
    Fail("parameters must hold 'steps', an I32 of at least 1");
  }
  const Node labels = root["labels"];
  if (!labels.value().is_null()) manifest.labels = ParseLabels(labels);
  ParseState(root["state"], &manifest);

  std::set<std::pair<std::string, int64_t>> seen;
  for (const Node& node : root["programs"].Items()) {
    Bucket bucket{node["platform"].String(), node["batch"].Integer(1, 1 << 16), {}, {}, {}};
    if (!seen.emplace(bucket.platform, bucket.batch).second) {
      Fail(node.place() + " has the platform and batch of another entry");
    }
    bucket.init = ParseProgram(node["init"], Stage::kInit, manifest, bucket.batch);
    bucket.step = ParseProgram(node["step"], Stage::kStep, manifest, bucket.batch);
    bucket.finish = ParseProgram(node["finish"], Stage::kFinish, manifest, bucket.batch);
    manifest.buckets.push_back(std::move(bucket));
  }
  if (manifest.buckets.empty()) Fail("programs must not be empty");
  manifest.reference = ParseReference(root["reference"], manifest);
  for (const auto& [name, node] : root["tensors"].Members()) {
    manifest.digests.emplace(name, node.String());
  }
  return manifest;
}

}  // namespace diffusion_sampler
