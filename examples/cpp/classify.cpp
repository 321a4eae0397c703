// Classify an image with a TorchScript program that trainkit exported:  ./classify BUNDLE IMAGE.ppm
//
// The program holds the preprocessing, so that the pixels go in as they are: uint8, (1, C, H, W). Colors become gray, and
// gray three equal channels, as the program takes them; it refuses images of another size than it was made for. IMAGE is
// a binary PPM (color, P6) or PGM (gray, P5): `python -c "from PIL import Image; Image.open('x.png').save('x.ppm')"` makes one.
#include <torch/script.h>

#include <cctype>
#include <fstream>
#include <iostream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

// The next whole number of a PNM header; comments start with #.
static int next_number(std::istream& in) {
    while (in >> std::ws && in.peek() == '#') in.ignore(1 << 20, '\n');
    int value = 0;
    if (!(in >> value) || value <= 0) throw std::runtime_error("damaged image header");
    return value;
}

// A binary PGM or PPM file as uint8 (1, C, H, W).
static torch::Tensor read_image(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    std::string magic(2, ' ');
    if (!in.read(magic.data(), 2) || (magic != "P5" && magic != "P6"))
        throw std::runtime_error(path + " is not a binary PGM or PPM image");
    const int channels = magic == "P6" ? 3 : 1;
    const int width = next_number(in), height = next_number(in), largest = next_number(in);
    if (largest != 255) throw std::runtime_error(path + " does not have 8 bits a channel");
    in.get();  // the one blank after the header
    torch::Tensor pixels = torch::empty({height, width, channels}, torch::kUInt8);
    if (!in.read(reinterpret_cast<char*>(pixels.data_ptr<uint8_t>()), pixels.numel()))
        throw std::runtime_error(path + " is cut short");
    return pixels.permute({2, 0, 1}).unsqueeze(0).contiguous();
}

static std::string read_text(const std::string& path) {
    std::ifstream in(path);
    return {(std::istreambuf_iterator<char>(in)), {}};
}

// The channels that model.pt takes: what follows "batch" in the shape of its input, in signature.json.
static int program_channels(const std::string& path) {
    const std::string text = read_text(path);
    size_t at = 0;
    for (const char* part : {"\"model.pt\": {", "\"shape\": [", "\"batch\"", ","}) {
        at = text.find(part, at);
        if (at == std::string::npos) throw std::runtime_error(path + " does not say what model.pt takes");
    }
    return std::stoi(text.substr(at + 1));
}

// (1, C, H, W) with as many channels as the program takes: colors to gray by Pillow's weights, gray to equal channels.
static torch::Tensor with_channels(const torch::Tensor& image, int channels) {
    if (image.size(1) == channels) return image;
    if (channels == 3) return image.expand({-1, 3, -1, -1}).contiguous();
    const torch::Tensor weights = torch::tensor({19595, 38470, 7471}, torch::kInt).reshape({1, 3, 1, 1});
    return (((image.to(torch::kInt) * weights).sum(1, true) + 32768) / 65536).to(torch::kUInt8);
}

// The last line of a message: what a program raised, without the lines of its code that led there.
static std::string last_line(std::string text) {
    text.erase(text.find_last_not_of(" \n") + 1);
    text = text.substr(text.rfind('\n') + 1);
    const std::string prefix = "builtins.ValueError: ";
    return text.rfind(prefix, 0) == 0 ? text.substr(prefix.size()) : text;
}

// labels.json: a list of strings. Knows \" and \\; other escapes stay as they are.
static std::vector<std::string> read_labels(const std::string& path) {
    const std::string text = read_text(path);
    std::vector<std::string> labels;
    bool inside = false;
    for (size_t i = 0; i < text.size(); ++i) {
        if (text[i] == '"') {
            inside = !inside;
            if (inside) labels.emplace_back();
        } else if (inside) {
            if (text[i] == '\\' && i + 1 < text.size() && (text[i + 1] == '"' || text[i + 1] == '\\')) ++i;
            labels.back() += text[i];
        }
    }
    return labels;
}

int main(int argc, char** argv) {
    if (argc != 3) {
        std::cerr << "usage: classify BUNDLE IMAGE.ppm\n";
        return 2;
    }
    try {
        const std::string bundle = argv[1];
        torch::jit::Module program = torch::jit::load(bundle + "/model.pt", torch::kCPU);
        program.eval();
        torch::InferenceMode no_gradients;
        const torch::Tensor image = with_channels(read_image(argv[2]), program_channels(bundle + "/signature.json"));
        const torch::Tensor probabilities = program.forward({image}).toTensor()[0];
        const auto best = probabilities.argmax().item<int64_t>();
        std::cout.precision(9);
        std::cout << read_labels(bundle + "/labels.json").at(best) << " " << probabilities[best].item<float>() << "\n";
    } catch (const c10::Error& error) {
        std::cerr << "error: " << last_line(error.what_without_backtrace()) << "\n";
        return 1;
    } catch (const std::exception& error) {
        std::cerr << "error: " << last_line(error.what()) << "\n";
        return 1;
    }
}
