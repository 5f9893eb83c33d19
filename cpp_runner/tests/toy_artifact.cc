#include "toy_artifact.h"

#include "sha256.h"

namespace diffusion_sampler::testing {
namespace {

using nlohmann::json;

json Array(const char* role, const char* name, const char* dtype, const json& shape) {
  return {{"role", role}, {"name", name}, {"dtype", dtype}, {"shape", shape}};
}

json Input(const char* role, const char* name, const char* dtype, const json& shape,
           bool donated = false) {
  json input = Array(role, name, dtype, shape);
  input["donated"] = donated;
  return input;
}

}  // namespace

ToyArtifact::ToyArtifact() {
  const json none = json::array();
  const json state = {Array("state", "x", "F32", {2, 2, 3, 1}),
                      Array("state", "keys", "U32", {2, 2})};
  const json x = Input("state", "x", "F32", {2, 2, 3, 1}, true);
  json kept = x;
  kept["donated"] = false;
  manifest = {
      {"name", "toy"},
      {"model", {{"class", "Toy"}, {"parameters", 3}, {"ema", true}}},
      {"producer", {{"jax", "0"}}},
      {"sample", {{"sampler", "ddim"}, {"shape", {2, 3, 1}}, {"range", {-1.0, 1.0}}}},
      {"parameters",
       {{"steps", {{"dtype", "I32"}, {"default", 5}, {"min", 1}, {"max", 9}, {"about", "steps"}}},
        {"eta",
         {{"dtype", "F32"}, {"default", 0.0}, {"min", 0.0}, {"max", 1.0}, {"about", "noise"}}}}},
      {"labels", {{"count", 2}, {"null", 2}, {"names", {"cat", "dog"}}}},
      {"state",
       {{{"name", "x"}, {"dtype", "F32"}, {"shape", {-1, 2, 3, 1}}},
        {{"name", "keys"}, {"dtype", "U32"}, {"shape", {-1, 2}}}}},
      {"programs",
       {{{"platform", "cpu"},
         {"batch", 2},
         {"init",
          {{"tensor", "programs/init"},
           {"inputs", {Input("seed", "seed", "U32", {2}), Input("first", "first", "I32", none)}},
           {"outputs", state}}},
         {"step",
          {{"tensor", "programs/step"},
           {"inputs",
            {Input("weight", "w", "F32", {3}), Input("parameter", "eta", "F32", none), x,
             Input("index", "index", "I32", none), Input("label", "label", "I32", {2})}},
           {"outputs", state}}},
         {"finish",
          {{"tensor", "programs/step"},
           {"inputs", {kept}},
           {"outputs", {Array("image", "image", "F32", {2, 2, 3, 1})}}}}}}},
      {"reference",
       {{"seed", 7},
        {"steps", 3},
        {"parameters", {{"eta", 0.0}}},
        {"labels", {0}},
        {"count", 1},
        {"tolerance",
         {{"cpu", {{"noise", 0.0}, {"image", 5e-5}}},
          {"other", {{"noise", 1e-5}, {"image", 0.01}}}}}}}};
  weights["w"] = std::string(12, '\0');
}

std::string MakeContainer(const nlohmann::ordered_json& header, const std::string& data) {
  return MakeContainer(header.dump(), data);
}

std::string MakeContainer(std::string text, const std::string& data) {
  text.append((64 - (8 + text.size()) % 64) % 64, ' ');
  std::string file;
  for (size_t i = 0; i < 8; ++i) file += static_cast<char>(text.size() >> (8 * i) & 0xFFU);
  return file + text + data;
}

std::string ToyArtifact::Bytes() const {
  nlohmann::ordered_json header;
  std::string data;
  json digests;
  const auto add = [&](const std::string& name, const std::string& dtype, const json& shape,
                       const std::string& bytes) {
    header[name] = {{"dtype", dtype},
                    {"shape", shape},
                    {"data_offsets", {data.size(), data.size() + bytes.size()}}};
    digests[name] = Sha256(bytes);
    data += bytes;
    const size_t padding = (64 - data.size() % 64) % 64;
    if (padding == 0) return;
    header["padding." + std::to_string(data.size())] = {
        {"dtype", "U8"},
        {"shape", {padding}},
        {"data_offsets", {data.size(), data.size() + padding}}};
    data.append(padding, '\0');
  };
  for (const auto& [name, bytes] : weights)
    add("weights/" + name, "F32", {bytes.size() / 4}, bytes);
  for (const auto& [name, bytes] : programs) add("programs/" + name, "U8", {bytes.size()}, bytes);
  add("reference/noise", "F32", {1, 2, 3, 1}, std::string(24, '\0'));
  add("reference/image", "F32", {1, 2, 3, 1}, std::string(24, '\0'));

  json completed = manifest;
  if (!completed.contains("tensors")) completed["tensors"] = digests;
  const std::string text = completed.dump();
  header["__metadata__"] = {{"format", format},
                            {"format_version", version},
                            {"manifest", text},
                            {"manifest_sha256", Sha256(text)}};
  return MakeContainer(header, data);
}

}  // namespace diffusion_sampler::testing
