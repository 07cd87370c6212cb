/** The pictures of examples/emoji by subject: names of drawings in the Fluent set, which are the emoji's English names. */
export const pictureNames = {
  animals: `ant bat bear beaver bird blowfish boar bug butterfly cat cat-face chicken cow cow-face crab crocodile deer dog
    dog-face dolphin donkey dove dragon duck eagle elephant fish flamingo fly fox frog giraffe goat goose gorilla hamster
    hedgehog hippopotamus honeybee horse horse-face jellyfish kangaroo koala lady-beetle leopard lion lizard llama lobster
    monkey moose mosquito mouse-face octopus orangutan otter owl panda parrot peacock penguin pig-face polar-bear
    rabbit-face raccoon rat rhinoceros rooster sauropod scorpion seal shark skunk sloth snail snake spider spouting-whale
    squid swan t-rex tiger-face tropical-fish turkey turtle two-hump-camel unicorn whale wolf worm zebra`,
  food: `avocado bacon bagel baguette-bread banana beer-mug birthday-cake bread broccoli burrito carrot cheese-wedge cherries
    chocolate-bar coconut cookie croissant cucumber doughnut dumpling ear-of-corn egg eggplant french-fries garlic grapes
    hamburger hot-beverage hot-dog hot-pepper ice-cream kiwi-fruit lemon lollipop mango melon mushroom onion pancakes peach
    peanuts pear pie pineapple pizza popcorn potato pretzel red-apple sandwich soft-ice-cream spaghetti strawberry sushi
    taco tangerine teapot tomato waffle watermelon wine-glass`,
  objects: `alarm-clock anchor backpack balloon battery bed bell bomb books broom camera candle chair coin compass
    computer-mouse couch-and-lamp crown door gem-stone glasses hammer hourglass-done key ladder laptop light-bulb locked
    magnet microscope mirror mobile-phone money-bag newspaper package paintbrush pencil printer radio ring scissors scroll
    shopping-cart soap syringe teddy-bear telephone telescope television thermometer toilet toothbrush trophy watch
    wrapped-gift wrench`,
  clothes: 'dress gloves high-heeled-shoe jeans running-shoe socks t-shirt top-hat',
  faces: `alien angry-face clown-face cowboy-hat-face crying-face exploding-head face-screaming-in-fear
    face-with-tears-of-joy face-with-thermometer ghost grinning-face jack-o-lantern loudly-crying-face nauseated-face
    nerd-face partying-face robot skull sleeping-face smiling-face-with-heart-eyes smiling-face-with-sunglasses snowman
    thinking-face winking-face`,
  places: `bridge-at-night castle church desert desert-island factory ferris-wheel fountain hospital house-with-garden mosque
    national-park school snow-capped-mountain stadium statue-of-liberty tent tokyo-tower volcano`,
  sports: `american-football badminton baseball basketball bow-and-arrow bowling boxing-glove curling-stone fishing-pole
    ice-skate ping-pong skateboard skis soccer-ball tennis volleyball`,
  instruments: 'accordion banjo drum flute guitar long-drum maracas musical-keyboard saxophone trumpet violin',
  weather: `cloud-with-lightning cloud-with-rain cloud-with-snow crescent-moon fire full-moon high-voltage rainbow snowflake
    star sun tornado umbrella-with-rain-drops water-wave`,
  vehicles: `airplane ambulance articulated-lorry automobile bicycle bus canoe delivery-truck fire-engine flying-saucer
    helicopter kick-scooter locomotive motor-scooter motorcycle passenger-ship police-car racing-car rocket sailboat
    satellite taxi tractor train tram-car`,
  plants: `cactus cherry-blossom christmas-tree deciduous-tree evergreen-tree four-leaf-clover herb hibiscus maple-leaf
    palm-tree potted-plant rose sheaf-of-rice sunflower tulip`,
};
