#!/bin/sh
# Every training that made a weight file of the package, in order, then the exports. Nothing runs it as a whole: the lines were
# run on two cores and on a large GPU over days, each for as long as its recipe says.
#
#   SHARDS=data/shards RUNS=runs/again DEVICE=cpu sh docs/models/recipes/chain.sh
#
# A line is: train STAGE RECIPE, --start=RUN where it goes on from another run's weights, and STAGE=RUN for those that it reads as
# they are. A run is named like its recipe in this folder. Calling the script again goes on where it stopped. After "scenes" the runs see
# another table of composed scenes beside the same pictures.
#
# What comes out is not the same to the byte: a length in minutes is another number of steps on another machine, a GPU sums in
# another order, and captions.safetensors holds English synonyms today that only the newest (t5-fifth on) read. Which weights a run read was
# not recorded before origin.json named them: those of lines that end in "by date" are the newest ones of their day.
set -eu
HERE=$(dirname "$0")
SHARDS=${SHARDS:-data/shards} RUNS=${RUNS:-runs/again} DEVICE=${DEVICE:-cpu} OUT=${OUT:-out/models}

weights() { echo "$RUNS/$1/average.safetensors"; }

train() {
    stage=$1 recipe=$2 options=
    shift 2
    for word in "$@"; do
        case $word in
            --start=*) options="$options --start $(weights "${word#--start=}")" ;;
            *) options="$options --frozen ${word%%=*}=$(weights "${word#*=}")" ;;
        esac
    done
    # shellcheck disable=SC2086  # options are several words, and names of runs have no spaces
    chashka train "$stage" --recipe "$HERE/$recipe.json" --shards "$SHARDS" --run "$RUNS/$recipe" --device "$DEVICE" $options
}

scenes() { # SEED COUNT LANGUAGES [SHARE in other words]: the folder of the shards with these scenes, which the lines that follow read
    SHARDS=$PLAIN-scenes$1
    [ -e "$SHARDS/scenes.safetensors" ] && return
    mkdir -p "$SHARDS"
    for file in "$PLAIN"/*; do
        case $file in */scenes.safetensors | */held-out.tsv | */\*) ;; *) ln -sf "$(realpath "$file")" "$SHARDS/" ;; esac
    done
    chashka data scenes --shards "$SHARDS" --seed "$1" --count "$2" --languages "$3" --other-words "${4:-0}"
}

PLAIN=$SHARDS
[ -e "$SHARDS/captions.safetensors" ] || chashka data build --out "$SHARDS"
[ -e "$SHARDS/scenes.safetensors" ] || chashka data scenes --shards "$SHARDS" --seed 0 --other-words 0

# The autoencoder: whole, whole again, and its decoder alone. What follows reads the first or the last of the three.
train autoencoder autoencoder
train autoencoder autoencoder-second --start=autoencoder
train autoencoder decoder-first --start=autoencoder-second

# The texts. Before the fourth of the first and the third of the second the vocabulary changed, and the weights were carried over to it
# (python -m chashka.training.vocabulary); today all begin with the newer one. The first two did not learn appearance then: their
# recipes say nothing of it, which means 128 numbers now.
train clip clip-first autoencoder=autoencoder
train clip clip-second --start=clip-first autoencoder=autoencoder
train clip clip-third --start=clip-second autoencoder=autoencoder
train clip clip-fourth --start=clip-third autoencoder=autoencoder
train clip clip-fifth --start=clip-fourth autoencoder=autoencoder
train clip clip-sixth --start=clip-fifth autoencoder=autoencoder
train clip clip-seventh --start=clip-sixth autoencoder=autoencoder # by date
train t5 t5-first
train t5 t5-second --start=t5-first
train t5 t5-third --start=t5-second
train t5 t5-fourth --start=t5-third

# The picture encoder. The recipe of a second run was not kept.
train picture picture clip=clip-fourth
train picture picture-third --start=picture clip=clip-fourth
train picture picture-fourth --start=picture-third clip=clip-fifth
train picture picture-fifth --start=picture-fourth clip=clip-sixth
train picture picture-sixth --start=picture-fifth clip=clip-seventh

# Kandinsky's U-Net, 96 wide, from nothing; the change of it that draws in four steps; what enlarges.
train unet unet-sixteenth autoencoder=decoder-first clip=clip-seventh t5=t5-fourth picture=picture-sixth # by date
train unet unet-seventeenth --start=unet-sixteenth autoencoder=decoder-first clip=clip-seventh t5=t5-fourth picture=picture-sixth # by date
train distil distil-first autoencoder=decoder-first clip=clip-seventh t5=t5-fourth picture=picture-sixth unet=unet-seventeenth
train upscale upscale-first autoencoder=decoder-first # by date

# Who is where: a T5 encoder of more sentences, then the U-Net that hears it and its few steps. The first of each began from the package's int8.
scenes 4 60000 6
train t5 t5-fifth --start=t5-fourth
train t5 t5-sixth --start=t5-fifth
scenes 3 60000 3
train unet unet-twenty-second --start=unet-seventeenth autoencoder=decoder-first clip=clip-seventh t5=t5-sixth picture=picture-sixth
train unet unet-twenty-third --start=unet-twenty-second autoencoder=decoder-first clip=clip-seventh t5=t5-sixth picture=picture-sixth
train distil distil-second --start=distil-first autoencoder=decoder-first clip=clip-seventh t5=t5-sixth picture=picture-sixth unet=unet-twenty-third

# The same in other words.
scenes 5 60000 3 0.5
train unet unet-twenty-fourth --start=unet-twenty-third autoencoder=decoder-first clip=clip-seventh t5=t5-sixth picture=picture-sixth
train unet unet-twenty-fifth --start=unet-twenty-fourth autoencoder=decoder-first clip=clip-seventh t5=t5-sixth picture=picture-sixth
train distil distil-third --start=distil-second autoencoder=decoder-first clip=clip-seventh t5=t5-sixth picture=picture-sixth unet=unet-twenty-fifth
SHARDS=$PLAIN

# The judges.
train judge judge-a-first autoencoder=decoder-first # by date
train judge judge-a-second --start=judge-a-first autoencoder=decoder-first # by date
train judge judge-b-first autoencoder=decoder-first # by date
train judge judge-b-second --start=judge-b-first autoencoder=decoder-first # by date

# Kandinsky's U-Net, 64 wide, as it was before: Stable Diffusion's was made of its fourteenth run. There is no eleventh.
train unet unet-first autoencoder=autoencoder clip=clip-first t5=t5-first # by date
train unet unet-second --start=unet-first autoencoder=autoencoder clip=clip-first t5=t5-first # by date
train unet unet-third --start=unet-second autoencoder=autoencoder clip=clip-first t5=t5-first # by date
train unet unet-fourth --start=unet-third autoencoder=autoencoder clip=clip-second t5=t5-second # by date
train unet unet-fifth --start=unet-fourth autoencoder=autoencoder clip=clip-third t5=t5-second # by date
train unet unet-sixth --start=unet-fifth autoencoder=autoencoder clip=clip-third t5=t5-second # by date
train unet unet-seventh --start=unet-sixth autoencoder=autoencoder clip=clip-third t5=t5-second # by date
train unet unet-eighth --start=unet-seventh autoencoder=autoencoder clip=clip-third t5=t5-second # by date
train unet unet-ninth --start=unet-eighth autoencoder=autoencoder clip=clip-fourth t5=t5-third # by date
train unet unet-tenth --start=unet-ninth autoencoder=autoencoder clip=clip-fourth t5=t5-third # by date
train unet unet-twelfth --start=unet-tenth autoencoder=autoencoder clip=clip-fifth t5=t5-third picture=picture-third
train unet unet-thirteenth --start=unet-twelfth autoencoder=autoencoder clip=clip-fifth t5=t5-third picture=picture-third # by date
train unet unet-fourteenth --start=unet-thirteenth autoencoder=autoencoder clip=clip-sixth t5=t5-third picture=picture-fifth

# Stable Diffusion's: that run crossed into its network, then trained.
mkdir -p "$RUNS/crossing"
[ -e "$(weights crossing)" ] || python -m chashka.training.crossing "$RUNS/unet-fourteenth" "$HERE/stable-second.json" "$(weights crossing)"
train unet stable-second --start=crossing autoencoder=autoencoder clip=clip-sixth
train unet stable-third --start=stable-second autoencoder=decoder-first clip=clip-seventh # by date

# Into the form of the package.
chashka export --autoencoder "$(weights decoder-first)" --clip "$(weights clip-seventh)" --t5 "$(weights t5-sixth)" \
    --unet "$(weights unet-twenty-fifth)" --latents "$RUNS/unet-twenty-fifth/features/latents.safetensors" --guidance 3 \
    --picture "$(weights picture-sixth)" --upscaler "$(weights upscale-first)" --fast "$(weights distil-third)" \
    --precision text_contrastive=int8 --precision text_t5=int8 --precision unet=int8 --precision picture=int8 --precision fast=int8 --out "$OUT/kandinsky"
chashka export --autoencoder "$OUT/kandinsky" --clip "$OUT/kandinsky" --unet "$(weights stable-third)" --precision unet=int8 --out "$OUT/stable_diffusion"
for judge in a b; do
    chashka export --judge "$(weights judge-$judge-second)" --shards "$SHARDS" --precision int8 --out "$OUT/judge_$judge"
done
